{{- define "lvs-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "lvs-operator.controller" -}}
{{ include "lvs-operator.fullname" . }}-controller
{{- end -}}

{{- define "lvs-operator.agent" -}}
{{ include "lvs-operator.fullname" . }}-agent
{{- end -}}

{{- define "lvs-operator.controller.account" -}}
{{ .Values.controller.serviceAccount.name | default (include "lvs-operator.controller" .) }}
{{- end -}}

{{- define "lvs-operator.agent.account" -}}
{{ .Values.agent.serviceAccount.name | default (include "lvs-operator.agent" .) }}
{{- end -}}

{{- define "lvs-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "lvs-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: lvs-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "lvs-operator.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The image of a component: (list $ .Values.agent.image) */}}
{{- define "lvs-operator.image" -}}
{{- $root := index . 0 -}}
{{- with index . 1 -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The address of the API server, for a container's environment. */}}
{{- define "lvs-operator.apiServer" -}}
{{- with .Values.apiServer -}}
{{- if .host -}}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .host | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .port | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The token bound to the pod and its node, with the CA and the namespace, as in every pod. */}}
{{- define "lvs-operator.token" -}}
- name: token
  projected:
    defaultMode: 0444
    sources:
    - serviceAccountToken:
        path: token
        expirationSeconds: 3607
    - configMap:
        name: kube-root-ca.crt
        items:
        - {key: ca.crt, path: ca.crt}
    - downwardAPI:
        items:
        - path: namespace
          fieldRef: {fieldPath: metadata.namespace}
{{- end -}}

{{/* A host and a port as one address: an IPv6 address in brackets. */}}
{{- define "lvs-operator.address" -}}
{{- if contains ":" .host -}}
[{{ .host }}]:{{ .port }}
{{- else -}}
{{ .host }}:{{ .port }}
{{- end -}}
{{- end -}}

{{/* The address for the kubelet's probes: the one that the agent listens on, or the node's own if the agent listens on all. */}}
{{- define "lvs-operator.agent.probeHost" -}}
{{- with .Values.agent.http.host -}}
{{- if not (has . (list "0.0.0.0" "::")) -}}
, host: {{ . | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The user of the agents of the cluster at the API server. */}}
{{- define "lvs-operator.agent.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "lvs-operator.agent.account" . }}
{{- end -}}
