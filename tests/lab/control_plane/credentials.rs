//! Writes the credentials of a control plane and its users: certificates, keys, tokens and kubeconfigs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use super::file;

/// The names by which pods reach the API server.
const SERVER_NAMES: &[&str] = &[
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    // The first addresses of the Services' ranges.
    "10.96.0.1",
    "fd00:10:96::1",
];

/// The user with all rights.
pub(super) const ADMIN: &str = "admin";

/// Writes the certificates, the keys and the tokens, and a kubeconfig for each user.
pub(super) fn write_credentials(
    directory: &Path,
    address: SocketAddr,
    users: &BTreeMap<String, Vec<String>>,
) -> Result<BTreeMap<String, PathBuf>> {
    let write = |name: &str, content: &str| {
        let path = directory.join(name);
        fs::write(&path, content).with_context(|| format!("could not write {}", path.display()))
    };
    let authority = Authority::new()?;
    let server = authority.certify_server(address.ip())?;
    let client = authority.certify_client("kube-apiserver-kubelet-client")?;
    write(file::AUTHORITY, &authority.certificate())?;
    write(file::SERVER_CERTIFICATE, &server.certificate)?;
    write(file::SERVER_KEY, &server.key)?;
    write(file::KUBELET_CLIENT_CERTIFICATE, &client.certificate)?;
    write(file::KUBELET_CLIENT_KEY, &client.key)?;
    let service_accounts = ServiceAccountKey::generate()?;
    write(file::SERVICE_ACCOUNT_KEY, &service_accounts.private())?;
    write(file::SERVICE_ACCOUNT_PUBLIC_KEY, &service_accounts.public())?;

    let mut users = users.clone();
    let taken = users.insert(ADMIN.to_owned(), vec!["system:masters".to_owned()]);
    ensure!(taken.is_none(), "the user `{ADMIN}` exists already");
    let mut tokens = String::new();
    let mut kubeconfigs = BTreeMap::new();
    for (name, groups) in users {
        let token = Token::generate()?;
        tokens.push_str(&token.line(&name, &groups)?);
        let path = kubeconfig_path(directory, &name);
        ensure!(!path.exists(), "two users share the kubeconfig of `{name}`");
        write_kubeconfig(directory, &path, address, token.text())?;
        kubeconfigs.insert(name, path);
    }
    write(file::TOKENS, &tokens)?;
    Ok(kubeconfigs)
}

/// Writes a kubeconfig with a token.
pub(super) fn write_kubeconfig(
    directory: &Path,
    path: &Path,
    address: SocketAddr,
    token: &str,
) -> Result<()> {
    let authority = directory.join(file::AUTHORITY);
    let authority =
        fs::read(&authority).with_context(|| format!("could not read {}", authority.display()))?;
    fs::write(path, kubeconfig(address, &authority, token))
        .with_context(|| format!("could not write {}", path.display()))
}

/// The path of a user's kubeconfig.
///
/// It has no colons, unlike users' names, since `KUBECONFIG` is a colon-separated list.
pub(super) fn kubeconfig_path(directory: &Path, user: &str) -> PathBuf {
    let plain = user.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    directory.join(format!("{plain}.kubeconfig"))
}

/// The certificate authority of a control plane.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
struct Certified {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Result<Self> {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let name = &mut parameters.distinguished_name;
        name.push(DnType::CommonName, "lab-control-plane");
        let issuer = CertifiedIssuer::self_signed(parameters, generate_key()?)
            .context("could not create a certificate authority")?;
        Ok(Self(issuer))
    }

    /// The authority's own certificate, in PEM.
    fn certificate(&self) -> String {
        self.0.pem()
    }

    /// Issues the certificate of an API server that listens on an address.
    fn certify_server(&self, address: IpAddr) -> Result<Certified> {
        let names = SERVER_NAMES.iter().map(ToString::to_string);
        let names: Vec<String> = names.chain([address.to_string()]).collect();
        self.certify("kube-apiserver", names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Issues the certificate of a client.
    fn certify_client(&self, name: &str) -> Result<Certified> {
        self.certify(name, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn certify(
        &self,
        name: &str,
        addresses: Vec<String>,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<Certified> {
        let mut parameters = CertificateParams::new(addresses)
            .with_context(|| format!("a name of {name} is not valid"))?;
        parameters.extended_key_usages = vec![purpose];
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = generate_key()?;
        let certificate = parameters
            .signed_by(&key, &self.0)
            .with_context(|| format!("could not issue a certificate for {name}"))?;
        Ok(Certified {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// The key that signs the tokens of service accounts.
struct ServiceAccountKey(KeyPair);

impl ServiceAccountKey {
    fn generate() -> Result<Self> {
        generate_key().map(Self)
    }

    /// The signing key, in PEM.
    fn private(&self) -> String {
        self.0.serialize_pem()
    }

    /// The verification key, in PEM.
    fn public(&self) -> String {
        self.0.public_key_pem()
    }
}

fn generate_key() -> Result<KeyPair> {
    KeyPair::generate().context("could not generate a key")
}

/// A user's bearer token.
struct Token(String);

impl Token {
    fn generate() -> Result<Self> {
        let mut bytes = [0_u8; 16];
        File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(&mut bytes))
            .context("could not read random bytes")?;
        Ok(Self(bytes.map(|byte| format!("{byte:02x}")).concat()))
    }

    fn text(&self) -> &str {
        &self.0
    }

    /// The token's line in the API server's token file.
    fn line(&self, user: &str, groups: &[String]) -> Result<String> {
        for name in groups.iter().map(String::as_str).chain([user]) {
            ensure!(
                !name.is_empty() && !name.contains([',', '"', '\n']),
                "`{name}` is not a valid name of a user or a group"
            );
        }
        let groups = groups.join(",");
        Ok(format!("{},{user},{user},\"{groups}\"\n", self.0))
    }
}

/// A kubeconfig with a token. It refers to no other file, so that it can be copied elsewhere. It is JSON, which is YAML.
fn kubeconfig(server: SocketAddr, authority: &[u8], token: &str) -> String {
    let authority = BASE64_STANDARD.encode(authority);
    let content = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "lab",
            "cluster": {"server": format!("https://{server}"), "certificate-authority-data": authority},
        }],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "user"}}],
        "current-context": "lab",
    });
    format!("{content:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_line_has_the_user_and_the_groups() {
        let token = Token("secret".to_owned());
        let groups = ["system:nodes".to_owned(), "others".to_owned()];
        let line = token.line("system:node:n1", &groups).unwrap();
        assert_eq!(
            line,
            "secret,system:node:n1,system:node:n1,\"system:nodes,others\"\n"
        );
    }

    #[test]
    fn a_name_that_would_end_the_field_is_refused() {
        let token = Token("secret".to_owned());
        for name in ["", "a,b", "a\"b", "a\nb"] {
            assert!(token.line(name, &[]).is_err(), "{name}");
            assert!(token.line("user", &[name.to_owned()]).is_err(), "{name}");
        }
    }
}
