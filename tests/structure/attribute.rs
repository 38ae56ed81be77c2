//! Reads from attributes whether an item belongs to tests only.

use syn::punctuated::Punctuated;
use syn::{Attribute, ImplItem, Item, Meta, Token};

/// Returns whether an item with these attributes exists in tests only: `#[test]`, or a `#[cfg]` that no other build satisfies.
pub(crate) fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        if attribute.path().is_ident("test") {
            return true;
        }
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<Meta>()
                .is_ok_and(|condition| requires_test(&condition))
    })
}

fn requires_test(condition: &Meta) -> bool {
    if condition.path().is_ident("test") {
        return true;
    }
    let Meta::List(list) = condition else {
        return false;
    };
    let Ok(parts) = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) else {
        return false;
    };
    if list.path.is_ident("all") {
        parts.iter().any(requires_test)
    } else {
        list.path.is_ident("any") && parts.iter().all(requires_test)
    }
}

/// Returns the value of `#[path = "…"]`.
pub(crate) fn path_of(attributes: &[Attribute]) -> Option<String> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("path"))
        .find_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) => string_of(&pair.value),
            Meta::Path(_) | Meta::List(_) => None,
        })
}

fn string_of(value: &syn::Expr) -> Option<String> {
    if let syn::Expr::Lit(literal) = value
        && let syn::Lit::Str(text) = &literal.lit
    {
        return Some(text.value());
    }
    None
}

/// Returns the attributes of an item; none for tokens that `syn` does not understand.
pub(crate) fn of_item(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Verbatim(_) => &[],
        _ => &[],
    }
}

/// Returns the attributes of an item in an `impl`.
pub(crate) fn of_impl_item(item: &ImplItem) -> &[Attribute] {
    match item {
        ImplItem::Const(item) => &item.attrs,
        ImplItem::Fn(item) => &item.attrs,
        ImplItem::Type(item) => &item.attrs,
        ImplItem::Macro(item) => &item.attrs,
        ImplItem::Verbatim(_) => &[],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(source: &str) -> Vec<Attribute> {
        let item: Item = syn::parse_str(&format!("{source} mod x {{}}")).unwrap();
        of_item(&item).to_vec()
    }

    #[test]
    fn an_item_is_for_tests_only_when_no_other_build_has_it() {
        for source in [
            "#[test]",
            "#[cfg(test)]",
            "#[cfg(all(test, feature = \"a\"))]",
            "#[cfg(any(test))]",
        ] {
            assert!(is_test_only(&of(source)), "{source}");
        }
        for source in [
            "",
            "#[cfg(any(test, feature = \"fake\"))]",
            "#[cfg(not(test))]",
            "#[cfg(feature = \"test\")]",
        ] {
            assert!(!is_test_only(&of(source)), "{source}");
        }
    }

    #[test]
    fn the_path_of_a_module_is_read() {
        assert_eq!(
            path_of(&of("#[path = \"../x.rs\"]")).as_deref(),
            Some("../x.rs")
        );
        assert_eq!(path_of(&of("#[doc = \"x\"]")), None);
    }
}
