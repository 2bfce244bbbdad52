"""NVIDIA GPUs, as far as can be told without one: NVML's answers come from a stand-in of its bindings."""

from __future__ import annotations

import sys

import pytest
import torch
from nvml_answers import Info, Nvml, NvmlError, card

from dumbwaiter.devices.contract import DeviceError
from dumbwaiter.devices.cuda import CudaAllocator, CudaDevice, list_gpus, started_nvml
from dumbwaiter.devices.host_memory import machine_memory
from dumbwaiter.devices.visible_gpus import Gpu, Target, choose, visible_targets
from dumbwaiter.errors import MissingExtraError

A = Gpu("GPU-aaaa1111-0000", "A100")
B = Gpu("GPU-aaaa2222-0000", "A100")
FAST = Gpu("GPU-ffff0000-0000", "H100")
SPLIT = Gpu("GPU-5b1170000-000", "A100", ("MIG-1111aaaa", "MIG-2222bbbb"))
HALF = Gpu("GPU-aaaa3333-0000", "A100", ("MIG-GPU-aaaa3333-0000/1/0",))
EMPTY = Gpu("GPU-eeee0000-0000", "A100", ())


def visible(gpus, names=None, **more):
    environ = more if names is None else {"CUDA_VISIBLE_DEVICES": names, **more}
    return [" or ".join(target.uuid for target in targets) for targets in visible_targets(gpus, environ)]


# --- which are visible ------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, [A.uuid, B.uuid]),
        ("", []),
        ("0", [A.uuid]),
        ("1,0", [B.uuid, A.uuid]),
        (" 1 , 0 ", [B.uuid, A.uuid]),
        ("1,-1,0", [B.uuid]),
        ("1,7,0", [B.uuid]),
        ("0,0", []),
        ("1gpu2,0", [B.uuid, A.uuid]),
        ("NoDevFiles", []),
        ("all", []),
        (B.uuid, [B.uuid]),
        ("GPU-aaaa2", [B.uuid]),
        ("GPU-aaaa", []),
        ("GPU-aaaa2,GPU-aaaa1", [B.uuid, A.uuid]),
        ("GPU-aaaa2,GPU-cccc,GPU-aaaa1", [B.uuid]),
        ("GPU-aaaa2,1", []),
        ("0,GPU-aaaa2", [A.uuid, B.uuid]),
    ],
)
def test_cards_are_visible_as_cuda_itself_reads_the_variable(names, expected):
    assert visible([A, B], names) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, [A.uuid, "MIG-1111aaaa or MIG-2222bbbb", HALF.instances[0], ""]),
        ("1", ["MIG-1111aaaa or MIG-2222bbbb"]),
        ("MIG-2222", ["MIG-2222bbbb"]),
        ("MIG-2222bbbb,MIG-1111aaaa", ["MIG-2222bbbb", "MIG-1111aaaa"]),
        ("MIG-GPU-aaaa3333-0000/1/0", [HALF.instances[0]]),
        ("MIG-9999", []),
        (SPLIT.uuid, ["MIG-1111aaaa or MIG-2222bbbb"]),
        (EMPTY.uuid, []),
    ],
)
def test_instances_of_a_split_card_are_visible_in_its_place(names, expected):
    assert visible([A, SPLIT, HALF, EMPTY], names) == expected


def test_places_among_cards_of_several_models_need_a_known_order():
    with pytest.raises(
        DeviceError, match=r"CUDA_VISIBLE_DEVICES=1 counts the GPUs from the fastest on.*A100, H100; set"
    ):
        visible([A, FAST], "1")
    assert visible([A, FAST], "1", CUDA_DEVICE_ORDER="PCI_BUS_ID") == [FAST.uuid]
    assert visible([A, FAST], FAST.uuid) == [FAST.uuid]
    assert visible([A, FAST]) == [A.uuid, FAST.uuid]


# --- which is meant ---------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "environ", "uuid"),
    [
        ("0", {}, A.uuid),
        ("0", {"CUDA_VISIBLE_DEVICES": "1"}, B.uuid),
        ("1", {"CUDA_VISIBLE_DEVICES": "1,0"}, A.uuid),
        (B.uuid, {}, B.uuid),
        ("GPU-aaaa2", {}, B.uuid),
        ("MIG-2222bbbb", {}, "MIG-2222bbbb"),
        ("MIG-11", {}, "MIG-1111aaaa"),
        ("3", {}, HALF.instances[0]),
        ("GPU-aaaa3333", {}, HALF.instances[0]),
    ],
)
def test_a_name_is_a_place_among_the_visible_or_enough_of_a_uuid(name, environ, uuid):
    assert choose(name, [A, B, SPLIT, HALF], environ).uuid == uuid


@pytest.mark.parametrize(
    ("name", "environ", "complaint"),
    [
        (
            "9",
            {},
            r"there is no cuda:9; there is cuda:0 \(A100, GPU-aaaa1111-0000\), cuda:1 \(A100, MIG-1111aaaa or MIG",
        ),
        ("0", {"CUDA_VISIBLE_DEVICES": ""}, "no cuda:0; no GPU is visible; CUDA_VISIBLE_DEVICES= hides 3 of 3"),
        (A.uuid, {"CUDA_VISIBLE_DEVICES": "1"}, "no cuda:GPU-aaaa1111-0000; .*; CUDA_VISIBLE_DEVICES=1 hides 2 of 3"),
        ("1", {}, "cuda:1 may be any of 2; name one: cuda:MIG-1111aaaa, cuda:MIG-2222bbbb"),
        (SPLIT.uuid, {}, "may be any of 2; name one: cuda:MIG-1111aaaa, cuda:MIG-2222bbbb"),
        ("2", {}, "cuda:2 is in MIG mode and has no instance; make one with: nvidia-smi mig"),
        ("GPU-", {}, "cuda:GPU- may be any of 3"),
        ("first", {}, "there is no cuda:first; there is cuda:0"),
        ("-1", {}, "there is no cuda:-1"),
        ("", {}, "there is no cuda:;"),
        ("MIG-GPU-aaaa3333-0000/1/1", {}, "there is no cuda:MIG-GPU-aaaa3333-0000/1/1"),
    ],
)
def test_a_name_that_means_nothing_or_too_much_is_told_what_there_is(name, environ, complaint):
    with pytest.raises(DeviceError, match=complaint):
        choose(name, [A, SPLIT, EMPTY], environ)


def test_an_instance_whose_name_begins_like_anothers_can_be_named():
    gpu = Gpu("GPU-1", "A100", ("MIG-GPU-1/1/1", "MIG-GPU-1/1/10"))
    assert choose("MIG-GPU-1/1/1", [gpu], {}) == Target("MIG-GPU-1/1/1", gpu)


# --- NVML -------------------------------------------------------------------


def test_a_card_is_known_by_its_uuid_and_used_by_whoever_it_is():
    device = CudaDevice("0", environ={}, nvml=Nvml(card()))
    assert (device.kind, device.name, device.address) == ("cuda", A.uuid, f"cuda:{A.uuid}")
    assert (device.capacity, device.used()) == (8000, 300)
    assert device.frees_late
    assert device.environment() == {"CUDA_VISIBLE_DEVICES": A.uuid}


def test_an_instance_is_a_device_of_its_own():
    instances = {0: {"uuid": "MIG-one", "memory": Info(2000, 10)}, 3: {"uuid": "MIG-two", "memory": Info(1000, 20)}}
    nvml = Nvml(card(mode=[1, 1], mig=instances))
    assert list_gpus(nvml) == [Gpu(A.uuid, "A100", ("MIG-one", "MIG-two"))]
    device = CudaDevice("MIG-two", environ={}, nvml=nvml)
    assert (device.capacity, device.used()) == (1000, 20)
    assert device.environment() == {"CUDA_VISIBLE_DEVICES": "MIG-two"}


def test_an_instance_that_another_container_has_is_not_there():
    instances = {0: {"uuid": "MIG-theirs", "unseen": NvmlError(4)}, 1: {"uuid": "MIG-ours", "memory": Info(1000, 20)}}
    assert list_gpus(Nvml(card(mode=[1, 1], mig=instances))) == [Gpu(A.uuid, "A100", ("MIG-ours",))]


def test_a_driver_that_knows_no_instances_has_whole_cards():
    assert list_gpus(Nvml(card(mode=NvmlError(13)))) == [A]


def test_an_instance_as_older_drivers_name_it_can_name_a_file():
    instances = {0: {"uuid": "MIG-GPU-aa/1/0", "memory": Info(2000, 10)}}
    device = CudaDevice("0", environ={}, nvml=Nvml(card(mode=[1, 1], mig=instances)))
    assert (device.name, device.address) == ("MIG-GPU-aa-1-0", "cuda:MIG-GPU-aa/1/0")


def test_older_bindings_that_answer_in_bytes_are_understood():
    assert list_gpus(Nvml(card(A.uuid.encode(), name=b"A100", mode=[0, 0]))) == [A]


def test_a_gpu_without_memory_of_its_own_has_the_machines():
    device = CudaDevice("0", environ={}, nvml=Nvml(card(name="NVIDIA GB10", memory=NvmlError(3))))
    assert device.capacity == machine_memory().total
    assert 0 < device.used() < device.capacity


@pytest.mark.parametrize(
    ("card_", "complaint"),
    [
        (
            card(uuid=NvmlError(15)),
            r"GPU 0 does not answer: what NVML says of 15 \(NVML error 15\); .* fallen off the bus",
        ),
        (card(name=NvmlError(999)), r"GPU 0 does not answer: .*999\); does nvidia-smi work here\?"),
        (
            card(mode=[1, 1], mig={0: {"uuid": "MIG-one", "unseen": NvmlError(15)}}),
            "GPU 0 does not answer: .*fallen off",
        ),
        (card(mode=NvmlError(4)), r"GPU 0 does not answer: .*; let this user read and write /dev/nvidia"),
        (card(mode=[1, 1], mig={0: {"uuid": NvmlError(1), "memory": None}}), "GPU 0 does not answer"),
        (
            card(memory=NvmlError(3)),
            r"GPU-aaaa1111-0000 does not answer: .*; this driver does not tell that of this GPU",
        ),
        (card(memory=NvmlError(18)), r"GPU-aaaa1111-0000 does not answer: .*restart the machine"),
    ],
)
def test_what_nvml_does_not_tell_is_an_error_with_the_next_step(card_, complaint):
    with pytest.raises(DeviceError, match=complaint):
        CudaDevice("0", environ={}, nvml=Nvml(card_))


def test_a_card_that_stops_answering_is_not_one_that_is_empty():
    nvml = Nvml(card())
    device = CudaDevice("0", environ={}, nvml=nvml)
    nvml.cards[0]["memory"] = NvmlError(15)
    with pytest.raises(DeviceError, match="fallen off the bus"):
        device.used()


def test_without_the_bindings_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingExtraError, match=r"nvidia-ml-py is not installed; .* 'dumbwaiter\[cuda\]'"):
        started_nvml()


# --- from inside ------------------------------------------------------------


def test_a_process_that_was_started_for_another_device_is_refused():
    for environ in ({}, {"CUDA_VISIBLE_DEVICES": f"{A.uuid},{B.uuid}"}):
        with pytest.raises(DeviceError, match=f"was to use {A.uuid} alone, but has CUDA_VISIBLE_DEVICES="):
            CudaAllocator(A.uuid, environ=environ)


def test_a_torch_without_cuda_is_told_how_to_get_one():
    if torch.version.cuda is not None:
        pytest.skip("this torch has CUDA")
    with pytest.raises(
        DeviceError, match=r"is built without CUDA and cannot use GPU-aaaa1111-0000; install one with it"
    ):
        CudaAllocator(A.uuid, environ={"CUDA_VISIBLE_DEVICES": A.uuid})


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"torch is not installed; .* 'dumbwaiter\[cuda\]'"):
        CudaAllocator(A.uuid, environ={"CUDA_VISIBLE_DEVICES": A.uuid})
