"""The chart, rendered by Helm itself, is the objects that are applied without it."""

from __future__ import annotations

import importlib.util
import re

import pytest
import yaml
from projects import combination, only_model, project
from schemas import check, keda_folder

from dumbwaiter.config import ModelSettings, ScalingSettings
from dumbwaiter.deploy import helm
from dumbwaiter.deploy.helm.values import marks_of
from dumbwaiter.deploy.kubernetes import rendered
from dumbwaiter.deploy.writing import write


@pytest.fixture
def installed():
    if importlib.util.find_spec("helm_python") is None:
        pytest.skip("RULE NOT CHECKED: Helm is not here; pip install helm-python-sdk (244 MB) brings it as a library")
    import helm_python

    return helm_python


def by_helm(library, folder, values=None, namespace="dumbwaiter"):
    chart = library.Chart.load(str(folder))
    texts = chart.render(values or {}, name="kitchen", namespace=namespace).values()
    found = [one for text in texts for one in yaml.safe_load_all(text) if one]
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def by_us(of):
    found = [each.object for each in rendered(of) if each.object["kind"] != "Namespace"]
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def without_nothing(found):
    """*found*, where a chart may say that there are none and we say nothing."""
    if found["kind"] == "Deployment":
        spec = found["spec"]["template"]["spec"]
        for name in ("nodeSelector", "tolerations"):
            if not spec.get(name):
                spec.pop(name, None)
    return found


WAYS = [
    ("rabbitmq", "external-push", "exclusive"),
    ("redis", "native", "shared"),
    ("sqs", "metrics-api", "mig"),
    ("kafka", "external-push", "time-slicing"),
    ("pubsub", "native", "none"),
]


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_helm_renders_what_is_applied_without_it(installed, way, tmp_path):
    of = combination(*way)
    write(tmp_path, helm.files(of))
    found = {key: without_nothing(one) for key, one in by_helm(installed, tmp_path).items()}
    assert found == by_us(of)


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_helm_finds_no_fault(installed, way, tmp_path):
    write(tmp_path / "dumbwaiter", helm.files(combination(*way)))
    report = installed.lint(str(tmp_path / "dumbwaiter"), {}, strict=False)
    assert [one for one in report["messages"] if one["severity"] > 1] == []


def test_another_namespace_image_and_size_are_values(installed, tmp_path):
    keda_folder()
    write(tmp_path, helm.files(project(host="api.example.com")))
    values = {
        "image": "elsewhere/kitchen:2",
        "secret": "123",
        "ingress": {"enabled": False},
        "models": {"resnet": {"maxReplicaCount": 40, "nodeSelector": {"pool": "gpu"}}},
    }
    found = by_helm(installed, tmp_path, values, namespace="elsewhere")
    assert {one["metadata"].get("namespace", "elsewhere") for one in found.values()} == {"elsewhere"}
    assert ("Ingress", "gateway") not in found
    worker = found["Deployment", "worker-resnet"]["spec"]["template"]["spec"]
    assert worker["containers"][0]["image"] == "elsewhere/kitchen:2"
    assert worker["nodeSelector"] == {"pool": "gpu"}
    scaled = found["ScaledObject", "worker-resnet"]["spec"]
    assert (scaled["maxReplicaCount"], scaled["minReplicaCount"]) == (40, 0)
    assert scaled["triggers"][0]["metadata"]["scalerAddress"] == "scaler.elsewhere.svc:9090"
    (condition,) = found["ValidatingAdmissionPolicy", "dumbwaiter-elsewhere-worker"]["spec"]["matchConditions"]
    assert "serviceaccount:elsewhere:worker" in condition["expression"]
    for one in found.values():
        check(one)


def test_what_looks_like_a_template_in_the_settings_stays_as_it_is(installed, tmp_path):
    parameters = {"prompt": "{{ .Values.image }} {{- end }}"}
    of = project(models={"resnet": ModelSettings(target="network:Infer", parameters=parameters)})
    write(tmp_path, helm.files(of))
    found = by_helm(installed, tmp_path)
    assert found["ConfigMap", "settings"] == by_us(of)["ConfigMap", "settings"]


def test_values_name_every_model_and_nothing_that_no_template_uses():
    of = project(
        gateway_max_replicas=5,
        models={**only_model(scaling=ScalingSettings(max_replicas=3)), "a.b": ModelSettings(target="a:B")},
    )
    texts = helm.files(of)
    values = yaml.safe_load(texts["values.yaml"])
    assert set(values["models"]) == {"resnet", "a.b"}
    templates = "".join(text for name, text in texts.items() if name.startswith("templates/"))
    for model, settings in values["models"].items():
        for name in settings:
            assert f'(index .Values.models "{model}").{name}' in templates
    for part in ("gateway", "courier", "scaler", "ingress"):
        for name in values[part]:
            assert f".Values.{part}.{name}" in templates, (part, name)


def test_a_wildcard_host_is_a_text_in_the_rules_and_in_the_list_of_the_certificate():
    texts = helm.files(project(host="*.example.com", tls_secret="api-tls"))
    assert yaml.safe_load(texts["values.yaml"])["ingress"]["host"] == "*.example.com"
    ingress = texts["templates/ingress-gateway.yaml"]
    assert ingress.count("{{ .Values.ingress.host | quote }}") == 2
    body = re.sub(r"(?m)^\{\{-.*\}\}$", "", ingress).replace("{{ .Values.ingress.host | quote }}", '"*.example.com"')
    spec = yaml.safe_load(re.sub(r"\{\{.*?\}\}", "x", body))["spec"]
    assert spec["tls"][0]["hosts"] == [spec["rules"][0]["host"]] == ["*.example.com"]


def test_helm_renders_a_wildcard_host(installed, tmp_path):
    of = project(host="*.example.com", tls_secret="api-tls")
    write(tmp_path, helm.files(of))
    assert by_helm(installed, tmp_path)["Ingress", "gateway"] == by_us(of)["Ingress", "gateway"]


def test_no_mark_is_left_over():
    for name, text in helm.files(project(host="api.example.com")).items():
        assert not re.search(r"mark-[a-z0-9]", text), name
        assert "\x02" not in text, name


def test_what_looks_like_a_mark_is_text():
    """Whoever knows how marks are made cannot write one: each depends on all that is written."""
    said = [*marks_of(project()), *marks_of(project(host="mark-host")), "mark-image", "mark-release-namespace"]
    models = {
        "mark-host": ModelSettings(target="network:Infer", parameters={"note": " ".join(said)}),
        "mark-secret": ModelSettings(target="network:Infer", weights="/home/chef/kitchen/mark-image.bin"),
    }
    of = project(models=models, ingress_annotations=[f"a={said[0]}"], host="api.example.com")
    texts = helm.files(of)
    config = texts["templates/config-map-settings.yaml"]
    for text in (*said, "mark-image.bin", "mark-host", "mark-secret"):
        assert text in config
    assert "templates/deployment-worker-mark-host.yaml" in texts
    assert f"a: {said[0]}" in texts["templates/ingress-gateway.yaml"]


def test_marks_are_nowhere_in_the_project():
    seen = set()
    for host in ("a.example.com", "b.example.com"):
        of = project(host=host)
        assert not [mark for mark in marks_of(of) if mark in repr(of)]
        seen |= set(marks_of(of))
    assert len(seen) == 10


def test_models_whose_names_look_like_marks_and_numbers_are_rendered_by_helm_as_they_are(installed, tmp_path):
    names = ("mark-host", "mark-image", "1e3", "null", "y", "0x10")
    said = {"note": " ".join(marks_of(project()))}
    of = project(models={name: ModelSettings(target="network:Infer", parameters=said) for name in names})
    write(tmp_path / "dumbwaiter", helm.files(of))
    found = {key: without_nothing(one) for key, one in by_helm(installed, tmp_path / "dumbwaiter").items()}
    assert found == by_us(of)
    report = installed.lint(str(tmp_path / "dumbwaiter"), {}, strict=False)
    assert [one for one in report["messages"] if one["severity"] > 1] == []
