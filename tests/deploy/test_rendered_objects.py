"""Whatever is rendered is what Kubernetes and KEDA take, and its parts fit each other."""

from __future__ import annotations

import functools
import itertools
import re
import tomllib

import pytest
import yaml
from projects import BROKERS, GPUS, IDENTITIES, PASSWORD, SCALING, combination, only_model, project, replaced, settings
from schemas import check, is_object_name, keda_folder

from dumbwaiter.config import GatewaySettings, ScalerSettings, ScalingSettings, load_settings
from dumbwaiter.deploy.kubernetes import project_of, rendered
from dumbwaiter.deploy.kubernetes.files import files
from dumbwaiter.deploy.kubernetes.rendering import secret_entries
from dumbwaiter.errors import ConfigError

WAYS = [
    way
    for way in itertools.product(BROKERS, SCALING, GPUS)
    if way[:2] != ("kafka", "native")  # refused: see test_triggers
]


made = functools.cache(combination)
_RENDERED = {}


@pytest.fixture(params=WAYS, ids="-".join)
def every_way(request):
    return made(*request.param)


#: Each broker with each way to scale, and the ways to get a GPU in turn.
SOME = [
    (broker, scaling, gpu)
    for (broker, scaling), gpu in zip(dict.fromkeys(way[:2] for way in WAYS), itertools.cycle(GPUS), strict=False)
]


@pytest.fixture(params=SOME, ids="-".join)
def way(request):
    return made(*request.param)


def objects(of):
    """What is applied; rendered once for all tests of a project."""
    if id(of) not in _RENDERED:
        _RENDERED[id(of)] = of, [each.object for each in rendered(of)]
    return _RENDERED[id(of)][1]


def by_kind(of, kind):
    return {found["metadata"]["name"]: found for found in objects(of) if found["kind"] == kind}


def pods(of):
    return {name: found["spec"]["template"] for name, found in by_kind(of, "Deployment").items()}


def containers(template):
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


# --- each object ---


def test_every_object_is_valid_by_the_strictest_reading(every_way):
    keda_folder()
    for found in objects(every_way):
        check(found)


@pytest.mark.parametrize("broker", IDENTITIES)
@pytest.mark.parametrize("scaling", SCALING)
def test_so_it_is_with_the_identities_of_a_cloud(broker, scaling):
    keda_folder()
    of = project(broker, trigger=scaling, identity=IDENTITIES[broker], role="serving")
    for found in objects(of):
        check(found)


def test_so_it_is_with_everything_that_can_be_added():
    keda_folder()
    of = project(
        host="api.example.com",
        tls_secret="api-tls",
        ingress_class="nginx",
        ingress_annotations=["nginx.ingress.kubernetes.io/proxy-body-size=32m"],
        gateway_max_replicas=8,
        gateway_from=["ingress-nginx"],
        pull_secret="registry",
        runtime_class="nvidia",
        node_selector=["cloud.google.com/gke-spot=true"],
        tolerations=["spot", "pool=gpu:NoExecute", "cloud.google.com/gke-spot:NoSchedule"],
        blobs="file:/blobs",
        storage="blobs",
        certificates="ca",
        env=["AWS_REGION=eu-central-1"],
    )
    kinds = [found["kind"] for found in objects(of)]
    assert {"Ingress", "HorizontalPodAutoscaler", "PodDisruptionBudget"} <= set(kinds)
    for found in objects(of):
        check(found)


def test_files_read_as_the_objects_and_the_kustomization_names_them_and_no_secret_is_in_any(every_way):
    texts = files(every_way)
    found = rendered(every_way)
    for each in found:
        assert yaml.load(texts[each.file], yaml.CSafeLoader) == each.object
    resources = yaml.safe_load(texts["kustomization.yaml"])["resources"]
    assert resources == [each.file for each in found]
    assert len(resources) == len(set(resources))
    assert set(texts) - set(resources) <= {"secret.example.yaml", "kustomization.yaml", "README.md", ".gitignore"}
    assert "secret.example.yaml" not in resources
    for name, text in texts.items():
        assert PASSWORD not in text, name


# --- how they fit ---


def test_a_scaled_object_is_in_the_namespace_of_its_deployment(way):
    deployments = by_kind(way, "Deployment")
    found = by_kind(way, "ScaledObject")
    assert found
    for scaled in found.values():
        target = deployments[scaled["spec"]["scaleTargetRef"]["name"]]
        assert scaled["metadata"]["namespace"] == target["metadata"]["namespace"] == way.namespace
        assert "replicas" not in target["spec"], "an apply would undo what KEDA has done"


def test_everything_that_has_a_namespace_is_in_one(way):
    without = {"Namespace", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    assert {found["metadata"].get("namespace") for found in objects(way) if found["kind"] not in without} == {
        way.namespace
    }


def test_services_budgets_and_policies_find_their_pods(way):
    templates = pods(way)

    def found_by(labels):
        return [name for name, one in templates.items() if labels.items() <= one["metadata"]["labels"].items()]

    for name, service in by_kind(way, "Service").items():
        assert found_by(service["spec"]["selector"]) == [name]
        ports = {port["containerPort"] for one in containers(templates[name]) for port in one.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for name, budget in by_kind(way, "PodDisruptionBudget").items():
        assert found_by(budget["spec"]["selector"]["matchLabels"]) == [name]
    for deployment_name, one in by_kind(way, "Deployment").items():
        assert found_by(one["spec"]["selector"]["matchLabels"]) == [deployment_name]
    for policy in by_kind(way, "NetworkPolicy").values():
        assert found_by(policy["spec"]["podSelector"].get("matchLabels", {}))


def test_what_pods_name_is_there(way):
    accounts, maps = by_kind(way, "ServiceAccount"), by_kind(way, "ConfigMap")
    claims = by_kind(way, "ResourceClaimTemplate")
    keys = {entry.key for entry in secret_entries(way)}
    for template in pods(way).values():
        spec = template["spec"]
        assert spec["serviceAccountName"] in accounts
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounted = {mount["name"] for one in containers(template) for mount in one["volumeMounts"]}
        assert mounted == set(volumes)
        assert {volume["configMap"]["name"] for volume in volumes.values() if "configMap" in volume} <= set(maps)
        for one in containers(template):
            for variable in one.get("env", []):
                if "secretKeyRef" in variable.get("valueFrom", {}):
                    assert variable["valueFrom"]["secretKeyRef"]["key"] in keys
            asked = {claim["name"] for claim in one["resources"].get("claims", [])}
            assert asked <= {claim["name"] for claim in spec.get("resourceClaims", [])}
        assert {claim["resourceClaimTemplateName"] for claim in spec.get("resourceClaims", [])} <= set(claims)


def test_triggers_log_in_with_what_is_there(way):
    logins = by_kind(way, "TriggerAuthentication")
    keys = {entry.key for entry in secret_entries(way)}
    for scaled in by_kind(way, "ScaledObject").values():
        for trigger in scaled["spec"]["triggers"]:
            # All of them, for what one trigger has to show the others have to show too.
            assert {trigger.get("authenticationRef", {}).get("name")} - {None} == set(logins)
    for login in logins.values():
        for ref in login["spec"].get("secretTargetRef", []):
            assert ref["key"] in keys or ref["name"] == way.kubernetes.certificates


def test_no_name_is_too_long_or_strange(way):
    for found in objects(way):
        assert is_object_name(found["metadata"]["name"])
        for value in found["metadata"]["labels"].values():
            assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", value)


# --- what is promised ---


def test_a_broker_that_may_have_a_password_is_no_plain_variable(way):
    is_cloud = way.settings.broker.startswith(("sqs:", "pubsub:"))
    for template in pods(way).values():
        for one in template["spec"]["containers"]:
            (variable,) = [each for each in one["env"] if each["name"] == "DUMBWAITER_BROKER"]
            assert ("value" in variable) is is_cloud
            assert ("valueFrom" in variable) is not is_cloud


def test_nobody_is_root_and_nothing_of_the_image_is_writable(way):
    for template in pods(way).values():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] != 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in containers(template):
            context = one["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"]["drop"] == ["ALL"]
            assert one["resources"]["requests"]["memory"] == one["resources"]["limits"]["memory"]
        for one in spec["containers"]:
            assert "add" not in one["securityContext"]["capabilities"]
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(one)


def test_only_workers_get_a_token_and_may_only_patch_pods(way):
    given = {name for name, template in pods(way).items() if template["spec"]["automountServiceAccountToken"]}
    assert given == {model.object_name for model in way.models}
    (role,) = by_kind(way, "Role").values()
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]}]
    (binding,) = by_kind(way, "RoleBinding").values()
    assert [subject["name"] for subject in binding["subjects"]] == ["worker"]


def test_nobody_gets_credentials_of_the_machine_unless_identities_are_used():
    def reached(**table):
        (rule,) = [
            one for one in by_kind(project(**table), "NetworkPolicy")["outward"]["spec"]["egress"] if "to" in one
        ]
        return {cidr for one in rule["to"] for cidr in one.get("ipBlock", {}).get("except", [])}

    assert "169.254.169.254/32" in reached()
    assert reached(identity="gcp") == set()


def test_nobody_is_reached_but_the_gateway_and_the_scaler(way):
    policies = by_kind(way, "NetworkPolicy")
    assert policies["closed"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    open_to = {name for name, one in policies.items() if one["spec"].get("ingress")}
    assert open_to == {"to-gateway", *(["to-scaler"] if way.has_scaler else [])}


def test_kubernetes_waits_longer_than_a_worker_takes_to_leave(way):
    for model in way.models:
        template = pods(way)[model.object_name]
        for one in template["spec"]["containers"]:
            (grace,) = [float(each["value"]) for each in one["env"] if each["name"] == "DUMBWAITER_WORKER__GRACE"]
            assert template["spec"]["terminationGracePeriodSeconds"] >= grace + 5


def test_what_kubernetes_gets_is_what_dumbwaiter_reads(way, tmp_path):
    """The file in the ConfigMap is one that the commands in the pods take, and means the same."""
    (found,) = by_kind(way, "ConfigMap").values()
    file = tmp_path / "dumbwaiter.toml"
    file.write_text(found["data"]["dumbwaiter.toml"])
    meant = load_settings(file, environ={"DUMBWAITER_BROKER": way.settings.broker})
    assert meant.blobs == way.settings.blobs
    assert set(meant.models) == {model.name for model in way.models}
    for model in way.models:
        assert meant.models[model.name].target == model.settings.target
        assert meant.models[model.name].scaling == model.settings.scaling
        assert meant.models[model.name].project == "/app"
    assert meant.gateway.host == "0.0.0.0"


def test_what_is_written_at_all_is_written_where_a_volume_is(way):
    tree = tomllib.loads(by_kind(way, "ConfigMap")["settings"]["data"]["dumbwaiter.toml"])
    for model in way.models:
        for one in pods(way)[model.object_name]["spec"]["containers"]:
            writable = [mount["mountPath"] for mount in one["volumeMounts"] if not mount.get("readOnly")]
            for name in ("slots", "footprints", "ledgers"):
                assert any(tree[name].startswith(f"{place}/") for place in writable), name


def test_who_is_probed_by_signs_of_life_is_told_where_to_give_them_and_nobody_else(way):
    assert "heartbeat" not in tomllib.loads(by_kind(way, "ConfigMap")["settings"]["data"]["dumbwaiter.toml"])
    for template in pods(way).values():
        for one in template["spec"]["containers"]:
            told = [each["value"] for each in one["env"] if each["name"] == "DUMBWAITER_HEARTBEAT"]
            assert len(told) == ("exec" in one["livenessProbe"])
            writable = [mount["mountPath"] for mount in one["volumeMounts"] if not mount.get("readOnly")]
            assert all(any(file.startswith(f"{place}/") for place in writable) for file in told)


def test_what_says_how_logs_of_pods_look_is_heard():
    for asked, told in (("auto", "json"), ("human", "human")):
        of = project_of(replaced(settings(), log_format=asked))
        assert f'log_format = "{told}"' in by_kind(of, "ConfigMap")["settings"]["data"]["dumbwaiter.toml"]


@pytest.mark.parametrize("trigger", ["external-push", "native"])
def test_the_scaler_listens_where_it_is_asked_whatever_the_settings_of_this_machine_say(trigger):
    of = project("redis", trigger=trigger, scaler=ScalerSettings(host="10.0.0.7", grpc_port=7, http_port=8))
    told = tomllib.loads(by_kind(of, "ConfigMap")["settings"]["data"]["dumbwaiter.toml"]).get("scaler")
    there = {"host": "0.0.0.0", "grpc_port": 9090, "http_port": 8090}
    assert told == (None if trigger == "native" else there)


@pytest.mark.parametrize(
    ("gpu", "device", "told"),
    [
        ("exclusive", "cuda:1", "cuda"),
        ("exclusive", "auto", None),
        ("none", "cuda:1", "none"),
        ("none", "auto", "none"),
    ],
)
def test_a_model_is_told_the_gpu_that_its_pod_has(gpu, device, told):
    of = project(gpu=gpu, models=only_model(device=device))
    tree = tomllib.loads(by_kind(of, "ConfigMap")["settings"]["data"]["dumbwaiter.toml"])
    assert tree["models"]["resnet"].get("device") == told


# --- GPUs ---


def test_gpus_are_given_as_the_mode_says(way):
    mode = way.kubernetes.gpu
    template = pods(way)["worker-resnet"]
    wanted = {
        "exclusive": {"nvidia.com/gpu": 2},
        "mig": {"nvidia.com/mig-1g.10gb": 1},
        "time-slicing": {"nvidia.com/gpu": 1},
        "mps": {"nvidia.com/gpu": 1},
    }.get(mode, {})
    for one in template["spec"]["containers"]:
        given = {name: count for name, count in one["resources"]["limits"].items() if name.startswith("nvidia.com/")}
        assert given == wanted
        assert one["resources"].get("claims", []) == ([{"name": "gpu"}] if mode == "shared" else [])
    count = {"shared": 2, "time-slicing": 2}.get(mode, 1)
    assert len(template["spec"]["containers"]) == count


def test_containers_that_share_a_gpu_share_a_ledger_and_nothing_else(way):
    template = pods(way)["worker-resnet"]
    states = [
        mount["subPath"]
        for one in template["spec"]["containers"]
        for mount in one["volumeMounts"]
        if mount["name"] == "state"
    ]
    assert len(states) == len(set(states)) == len(template["spec"]["containers"])
    for one in template["spec"]["containers"]:
        (ledger,) = [mount for mount in one["volumeMounts"] if mount["name"] == "ledgers"]
        assert "subPath" not in ledger
    (volume,) = [volume for volume in template["spec"]["volumes"] if volume["name"] == "ledgers"]
    assert ("hostPath" in volume) is (way.kubernetes.node_ledgers is not None)


def test_what_workers_of_one_pod_say_of_their_costs_lies_in_that_pod_and_ends_with_it(way):
    for template in pods(way).values():
        spec, folders = template["spec"], set()
        for one in spec["containers"]:
            folders |= {each["value"] for each in one["env"] if each["name"] == "POD_COSTS"}
            mounted = {mount["name"] for mount in one["volumeMounts"] if mount["mountPath"] in folders}
            volumes = [volume for volume in spec["volumes"] if volume["name"] in mounted]
            assert ["emptyDir" in volume for volume in volumes] == [True] * len(folders)
        assert len(folders) == (1 if "worker-2" in {one["name"] for one in spec["containers"]} else 0)


def test_a_model_of_the_cpu_gets_no_gpu_whatever_the_mode(way):
    (name,) = [model.object_name for model in way.models if model.name == "Text.Embedding"]
    template = pods(way)[name]
    assert "nvidia" not in str(template["spec"]["containers"][0]["resources"])
    assert not {"tolerations", "resourceClaims", "runtimeClassName", "initContainers"} & set(template["spec"])


# --- numbers ---


def test_as_many_pods_as_workers_need(way):
    each = len(pods(way)["worker-resnet"]["spec"]["containers"])
    spec = by_kind(way, "ScaledObject")["worker-resnet"]["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 6 // each)


def test_nobody_is_sent_away_while_the_scaler_fails(way):
    for scaled in by_kind(way, "ScaledObject").values():
        assert scaled["spec"]["fallback"] == {
            "failureThreshold": 3,
            "replicas": 1,
            "behavior": "currentReplicasIfHigher",
        }


def test_workers_come_at_once_and_go_late(way):
    for scaled in by_kind(way, "ScaledObject").values():
        behavior = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
        assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= 300


@pytest.mark.parametrize(("cold", "window", "cooldown"), [(10.0, 300, 60), (200.0, 600, 200), (9000.0, 3600, 9000)])
def test_the_window_is_three_cold_starts_between_its_bounds(cold, window, cooldown):
    scaling = ScalingSettings(max_replicas=4, cold_start=cold)
    spec = by_kind(project(models=only_model(scaling=scaling)), "ScaledObject")["worker-resnet"]["spec"]
    found = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"]
    assert found == window
    assert spec["cooldownPeriod"] == cooldown
    assert spec["initialCooldownPeriod"] >= 2 * cold


@pytest.mark.parametrize(
    ("least", "most", "pods"), [(0, 5, (0, 2)), (0, 1, (0, 1)), (1, 1, (1, 1)), (3, 4, (2, 2)), (3, 3, None)]
)
def test_pods_of_two_never_have_more_workers_than_the_model_may_but_for_one_pod(least, most, pods):
    scaling = ScalingSettings(min_replicas=least, max_replicas=most)
    of = project(gpu="shared", containers=2, models=only_model(scaling=scaling))
    if pods is None:
        with pytest.raises(ConfigError, match=r"no number of pods with 2 workers .* from 3 to 3; .*max_replicas = 4$"):
            rendered(of)
        return
    spec = by_kind(of, "ScaledObject")["worker-resnet"]["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == pods


def test_a_scaler_with_a_certificate_is_rendered_as_kubernetes_and_keda_take_it():
    keda_folder()
    for found in objects(project(certificates="own", scaler=ScalerSettings(**PAIR))):
        check(found)


# --- refused ---

PAIR = {"certfile": "/etc/dumbwaiter-certificates/a.crt", "keyfile": "/etc/dumbwaiter-certificates/a.key"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image": None}, "kubernetes.image is not set"),
        ({"broker": "sqlite:/queue.db"}, "kubernetes.broker"),
        ({"broker": "memory:"}, "one process's memory"),
        ({"blobs": "file:/blobs"}, "kubernetes.storage"),
        ({"blobs": "memory:"}, "cannot share the blob store"),
        ({"gpu": "shared"}, "containers = 2"),
        ({"gpu": "mig"}, "mig_profile"),
        ({"mig_profile": "1g.10gb"}, 'gpu = "mig"'),
        ({"containers": 2}, 'is "exclusive"'),
        ({"gpu": "mps", "gpus": 2}, "a part of one"),
        ({"node_ledgers": "/x"}, "time-slicing"),
        ({"models": only_model(weights="/elsewhere/w.pt")}, "outside of the project"),
        ({"models": only_model(project="/elsewhere")}, "models.resnet.project"),
        ({"models": only_model(device="cuda:GPU-12ab")}, "models.resnet.device"),
        ({"gateway_memory": 1024**2}, "kubernetes.gateway_memory = 1048576 bytes"),
        ({"gateway": GatewaySettings(memory_limit=1024**3)}, "gateway.memory_limit = 1073741824"),
        *(
            ({"env": [f"{name}=x"], "gpu": "mps", "containers": 2}, f"kubernetes.env: {name} is a variable")
            for name in (
                *("POD_NAME", "POD_NAMESPACE", "POD_CONTAINER", "POD_COSTS", "DUMBWAITER_CONFIG"),
                *("DUMBWAITER_BROKER", "DUMBWAITER_HEARTBEAT", "DUMBWAITER_WORKER__GRACE"),
            )
        ),
        ({"broker": "sqs", "env": ["DUMBWAITER_BROKER=sqs://x"]}, "kubernetes.env: DUMBWAITER_BROKER"),
        ({"blobs": "gs://k", "env": ["GOOGLE_APPLICATION_CREDENTIALS=/x"]}, "kubernetes.env: GOOGLE_APPLICATION_CRED"),
        ({"gateway_max_replicas": 1}, "kubernetes.gateway_replicas = 2"),
        ({"gateway": GatewaySettings(certfile="/etc/cert.pem")}, "gateway.certfile"),
        ({"gateway": GatewaySettings(**PAIR)}, "kubernetes.certificates"),
        ({"scaler": ScalerSettings(certfile="/etc/cert.pem")}, "scaler.certfile = '/etc/cert.pem' lies on this"),
        ({"scaler": ScalerSettings(**PAIR)}, "kubernetes.certificates"),
        ({"scaler": ScalerSettings(certfile=PAIR["certfile"]), "certificates": "own"}, "scaler.keyfile is not set"),
        (
            {"scaler": ScalerSettings(**PAIR), "certificates": "own", "trigger": "metrics-api"},
            'kubernetes.trigger = "external-push"',
        ),
    ],
)
def test_what_cannot_run_there_is_refused_by_name(changes, said):
    with pytest.raises(ConfigError) as caught:
        rendered(project(**changes))
    assert said in str(caught.value)


def test_a_home_and_a_folder_for_scratch_may_be_others():
    of = project(env=["HOME=/home/chef", "TMPDIR=/scratch"])
    env = by_kind(of, "Deployment")["gateway"]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert [one["value"] for one in env if one["name"] in {"HOME", "TMPDIR"}] == ["/home/chef", "/scratch"]


def test_the_cluster_may_use_another_broker_and_store_than_the_machine_that_renders():
    here = settings("sqlite:/queue.db", blobs="file:/blobs")
    there = replaced(here.kubernetes, broker="amqp://rabbit.kitchen", blobs="gs://kitchen")
    of = project_of(replaced(here, kubernetes=there))
    assert (of.settings.broker, of.settings.blobs) == ("amqp://rabbit.kitchen", "gs://kitchen")
    tree = tomllib.loads(by_kind(of, "ConfigMap")["settings"]["data"]["dumbwaiter.toml"])
    assert tree["blobs"] == "gs://kitchen"
    assert "broker" not in tree
