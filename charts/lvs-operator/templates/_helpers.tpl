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

{{/* The role of all machines outside the cluster. */}}
{{- define "lvs-operator.machine" -}}
{{ include "lvs-operator.fullname" . }}-machine
{{- end -}}

{{/* The label of the nodes that get an agent, unless all of them do. */}}
{{- define "lvs-operator.agent.label" -}}
lvs-operator.io/agent
{{- end -}}

{{- define "lvs-operator.agent.nodeSelector" -}}
{{- $selector := .Values.agent.nodeSelector | default dict -}}
{{- if eq .Values.agent.nodes "labelled" -}}
{{- $selector = merge (dict (include "lvs-operator.agent.label" .) "true") $selector -}}
{{- end -}}
{{- toYaml $selector -}}
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

{{/* The user of the controllers at the API server. */}}
{{- define "lvs-operator.controller.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "lvs-operator.controller.account" . }}
{{- end -}}

{{/* The user of the agents of the cluster at the API server. */}}
{{- define "lvs-operator.agent.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "lvs-operator.agent.account" . }}
{{- end -}}

{{/* The names of the nodes with a label, or of all: (list $ LABEL). */}}
{{- define "lvs-operator.nodes" -}}
{{- $label := index . 1 -}}
{{- range (lookup "v1" "Node" "" "").items -}}
{{- if or (eq $label "") (eq (dig $label "" (.metadata.labels | default dict)) "true") -}}
{{ .metadata.name }}{{ "\n" }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
The nodes that an upgrade would leave without an agent although they direct or serve: a release whose agents ran everywhere becomes
one whose agents need a label. Empty without access to the cluster, as with `helm template`.
*/}}
{{- define "lvs-operator.agent.stranded" -}}
{{- $daemonset := lookup "apps/v1" "DaemonSet" .Release.Namespace (include "lvs-operator.agent" .) -}}
{{- $label := include "lvs-operator.agent.label" . -}}
{{- $selector := dig "spec" "template" "spec" "nodeSelector" dict $daemonset -}}
{{- if and (eq .Values.agent.nodes "labelled") $daemonset (not (hasKey $selector $label)) -}}
{{- $nodes := include "lvs-operator.nodes" (list . "") | trim | splitList "\n" -}}
{{- $labelled := include "lvs-operator.nodes" (list . $label) | trim | splitList "\n" -}}
{{- $used := list -}}
{{- if .Capabilities.APIVersions.Has "lvs-operator.io/v1alpha1/LvsNode" -}}
{{- range (lookup "lvs-operator.io/v1alpha1" "LvsNode" "" "").items -}}
{{- if or .spec.groups .spec.serves -}}
{{- $used = append $used .metadata.name -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Capabilities.APIVersions.Has "lvs-operator.io/v1alpha1/RealServerBinding" -}}
{{- range (lookup "lvs-operator.io/v1alpha1" "RealServerBinding" "" "").items -}}
{{- $used = append $used .spec.node -}}
{{- end -}}
{{- end -}}
{{- range $used | uniq | sortAlpha -}}
{{- if and (has . $nodes) (not (has . $labelled)) -}}
{{ . }}{{ " " }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Not empty if an object exists: (list $ KIND NAME). Always empty without access to the cluster. */}}
{{- define "lvs-operator.exists" -}}
{{- $root := index . 0 -}}
{{- $kind := index . 1 -}}
{{- if $root.Capabilities.APIVersions.Has (printf "lvs-operator.io/v1alpha1/%s" $kind) -}}
{{- if lookup "lvs-operator.io/v1alpha1" $kind "" (index . 2) -}}
yes
{{- end -}}
{{- end -}}
{{- end -}}
