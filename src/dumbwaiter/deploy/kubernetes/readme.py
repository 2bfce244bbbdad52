"""The README beside the objects: what to install, which secrets to make, how to apply. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dumbwaiter.deploy import places
from dumbwaiter.deploy.folders import SECRETS
from dumbwaiter.deploy.kubernetes.project import Project
from dumbwaiter.deploy.kubernetes.scaling import AUTHORITY
from dumbwaiter.deploy.kubernetes.secrets import Entry
from dumbwaiter.deploy.kubernetes.triggers import triggers_of

KEDA = "2.20.2"
DEVICE_PLUGIN = "0.18.2"
DRA_DRIVER = "25.12.0"
_ABOUT = (
    "Rendered by `dumbwaiter deploy {command}`. Change `dumbwaiter.toml` and render again, or put {above} of your\n"
    "own above this folder: a file that was edited by hand is not overwritten, and so not renewed either.\n\n"
    "**All commands of this page are for this folder**: `cd` to where this file lies first."
)
_IMAGE = (
    "`{image}` must have dumbwaiter with the extras of the broker and of `scaler`, and the project in `{folder}`,\n"
    "readable by user {user}. `dumbwaiter deploy image` renders a Dockerfile for one."
)
_MAKE = f"mkdir -p -m 700 {SECRETS}"
_REPLICAS = 4
"""How many slices of a GPU the example makes, where the settings do not say."""


def text(project: Project, entries: Sequence[Entry], *, chart: bool = False) -> str:
    """The page, as Markdown: of the objects, or of the *chart* with them."""
    command, above = ("helm", "values") if chart else ("kubernetes", "a kustomization")
    parts = [
        "# dumbwaiter on Kubernetes",
        _ABOUT.format(command=command, above=above),
        "## 1. What the cluster needs",
        *_needs(project),
        "## 2. The image",
        _IMAGE.format(image=project.kubernetes.image, folder=places.PROJECT, user=places.USER),
        *_secrets(project, entries, chart=chart),
        f"## {4 if entries else 3}. Apply",
        _apply(project, chart=chart),
        *_notes(project),
    ]
    return "\n\n".join(parts) + "\n"


def _needs(project: Project) -> Iterator[str]:
    modes = {project.gpu_mode(model) for model in project.models} - {"none"}
    least = "1.34 or later (GPUs are shared by claim)" if "shared" in modes else "1.30 or later"
    yield f"Kubernetes {least}, and a network that enforces NetworkPolicies."
    if project.scales:
        yield f"KEDA {KEDA}, in the namespace `{project.kubernetes.keda_namespace}`:"
        yield _code(
            "helm repo add kedacore https://kedacore.github.io/charts",
            f"helm install keda kedacore/keda --version {KEDA} --create-namespace \\",
            f"  --namespace {project.kubernetes.keda_namespace}",
        )
    if modes == {"shared"}:
        yield f"NVIDIA's DRA driver {DRA_DRIVER}, which lets several containers of a pod use one GPU:"
        yield _code(
            "helm repo add nvidia https://helm.ngc.nvidia.com/nvidia",
            f"helm install nvidia-dra-driver-gpu nvidia/nvidia-dra-driver-gpu --version {DRA_DRIVER} \\",
            "  --namespace nvidia-dra-driver-gpu --create-namespace \\",
            "  --set gpuResourcesEnabledOverride=true --set resources.computeDomains.enabled=false",
        )
    elif modes:
        yield f"NVIDIA's device plugin {DEVICE_PLUGIN}{_plugin_words(project)}:"
        yield _code(*_plugin(project))


def _plugin_words(project: Project) -> str:
    mode = project.kubernetes.gpu
    if mode == "mig":
        return f", on nodes whose GPUs have been divided into `{project.kubernetes.mig_profile}`"
    if mode in {"time-slicing", "mps"}:
        return ", which tells Kubernetes of more GPUs than there are"
    return ""


def _plugin(project: Project) -> list[str]:
    chart = f"nvdp nvdp/nvidia-device-plugin --version {DEVICE_PLUGIN}"
    install = f"helm install {chart} --create-namespace --namespace nvidia-device-plugin"
    lines = ["helm repo add nvdp https://nvidia.github.io/k8s-device-plugin"]
    mode = project.kubernetes.gpu
    if mode == "mig":
        return [*lines, f"{install} --set migStrategy=mixed"]
    if mode not in {"time-slicing", "mps"}:
        return [*lines, install]
    sharing = {"time-slicing": "timeSlicing", "mps": "mps"}[mode]
    replicas = max(_REPLICAS, project.kubernetes.containers)
    return [
        "cat > sharing.yaml <<'END'",
        "version: v1",
        "sharing:",
        f"  {sharing}:",
        "    resources:",
        f"      - name: {project.kubernetes.gpu_resource}",
        f"        replicas: {replicas}",
        "END",
        *lines,
        f"{install} --set-file config.map.config=sharing.yaml",
    ]


def _secrets(project: Project, entries: Sequence[Entry], *, chart: bool) -> Iterator[str]:
    if not entries:
        return
    name, namespace = project.kubernetes.secret, project.namespace
    shown = "" if chart else " (`secret.example.yaml` shows its keys)"
    yield "## 3. Secrets"
    yield (
        f"The Secret `{name}` holds what is secret, and nothing that is rendered does{shown}. Put each value into a\n"
        f"file of the key's name in the folder `{SECRETS}` beside this page, without a line break at its end.\n"
        f"{_left_out(chart=chart)}"
    )
    yield _code(_MAKE)
    yield "\n".join(f"- `{SECRETS}/{entry.key}`: {entry.wanted}" for entry in entries)
    given = [f"  --from-file={SECRETS}/{entry.key}" for entry in entries]
    create = f"kubectl create secret generic {name} --namespace {namespace}"
    yield _code(
        f"kubectl create namespace {namespace} --dry-run=client -o yaml | kubectl apply -f -",
        " \\\n".join([create, *given]),
    )


def _left_out(*, chart: bool) -> str:
    """Who does not take what lies in the folder of secrets."""
    return f"Git{', Helm' if chart else ''} and `dumbwaiter deploy image` leave that folder out:"


def _apply(project: Project, *, chart: bool) -> str:
    namespace = project.namespace
    apply = "kubectl apply -k ."
    if chart:
        apply = f"helm upgrade --install {namespace} . --namespace {namespace} --create-namespace"
    lines = [apply]
    if project.settings.gateway.auth != "off":
        lines += [
            "# Callers need an API key, and without one the gateway does not start:",
            f"kubectl --namespace {namespace} rollout status deployment/courier",
            _MAKE,
            f"kubectl --namespace {namespace} exec deployment/courier -- \\",
            f"  dumbwaiter keys create --name first > {SECRETS}/key.txt",
        ]
    lines.append(f"kubectl --namespace {namespace} rollout status deployment/gateway")
    if project.scales:
        lines.append(f"kubectl --namespace {namespace} get scaledobjects,hpa,pods")
    return _code(*lines)


def _notes(project: Project) -> Iterator[str]:
    notes = list(_told(project))
    if notes:
        yield "## Good to know"
        yield "\n".join(f"- {note}" for note in notes)


def _told(project: Project) -> Iterator[str]:
    table = project.kubernetes
    yield (
        "Workers patch their own pod's `controller.kubernetes.io/pod-deletion-cost`; the ValidatingAdmissionPolicy lets"
        " them do no more. It has no namespace: who may not make such objects leaves the two files out."
    )
    if table.gpu in {"time-slicing", "mps"} and table.node_ledgers is None:
        yield (
            "Pods on one GPU do not know of each other's memory: the ledger is each pod's own. With"
            " `kubernetes.node_ledgers` they share a folder of the node; otherwise leave room, or let one pod have all"
            " slices (`kubernetes.containers`)."
        )
    if (table.tolerations or table.node_selector) and table.notice is None:
        yield (
            "If these nodes are spot machines, write `kubernetes.notice`: how long before they are taken back they say"
            " so. Workers then hand back in time what they cannot finish."
        )
    if project.scaler_has_tls:
        yield (
            f"KEDA asks the scaler by TLS: its certificate must be for `scaler.{project.namespace}.svc`, and the Secret"
            f" `{table.certificates}` must have the authority that signed it as `{AUTHORITY}`, or KEDA refuses it."
        )
    for model in project.models:
        if model.settings.scaling.is_on and table.trigger == "native":
            native = triggers_of(project, model).native
            if native is not None and native.note:
                yield native.note
                return


def _code(*lines: str) -> str:
    return "\n".join(["```sh", *lines, "```"])
