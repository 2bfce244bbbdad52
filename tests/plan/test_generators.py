"""Made-up arrivals have the statistics that they claim, and are the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from dumbwaiter.plan.generators import GENERATORS, JOB, generated
from dumbwaiter.plan.services import Curve, Heavy, Inputs, parse_curve, parse_heavy
from dumbwaiter.policies.service_times import Bucket, ServiceTimes

PLAIN = Inputs(Curve(each=0.1))
DAY = 86_400.0


def made(name, *, rate=10.0, duration=4 * 3600.0, seed=1, inputs=PLAIN):
    return generated(name, inputs, rate=rate, duration=duration, seed=seed)


def dispersion(trace, width=60.0):
    """Variance of counts over their mean: 1 for a Poisson process."""
    counts = np.histogram(trace.arrivals, bins=int(trace.duration / width), range=(0.0, trace.duration))[0]
    return counts.var() / counts.mean()


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_the_same_seed_makes_the_same_and_another_one_another(name):
    first, again, other = made(name), made(name), made(name, seed=2)
    assert first.arrivals.tolist() == again.arrivals.tolist()
    assert first.arrivals.tolist() != other.arrivals.tolist()


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_arrivals_are_in_order_and_within_the_time(name):
    trace = made(name)
    assert (np.diff(trace.arrivals) >= 0.0).all()
    assert trace.arrivals[0] >= 0.0
    assert trace.arrivals[-1] < trace.duration


@pytest.mark.parametrize(
    ("name", "within"), [(name, 0.3 if name in {"azure", "mmpp3"} else 0.1) for name in GENERATORS]
)
def test_the_mean_rate_is_what_was_asked_for(name, within):
    duration = DAY if name == "diurnal" else 8 * 3600.0
    rates = [len(made(name, duration=duration, seed=seed, rate=4.0)) / duration for seed in range(8)]
    assert np.mean(rates) == pytest.approx(4.0, rel=within)


@pytest.mark.parametrize("name", ["bursts", "gamma", "jobs", "mmpp2", "mmpp3", "flash", "azure"])
def test_what_comes_in_bursts_is_dispersed_and_poisson_is_not(name):
    assert dispersion(made("poisson")) == pytest.approx(1.0, abs=0.25)
    assert dispersion(made(name)) > 3.0


def test_gamma_gaps_vary_more_than_exponential_ones():
    gaps = np.diff(made("gamma").arrivals)
    assert gaps.std() / gaps.mean() > 1.2
    gaps = np.diff(made("poisson").arrivals)
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.02)


def test_mmpp2_has_five_times_the_calm_rate_for_a_sixth_of_the_time():
    trace = made("mmpp2", duration=40 * 3600.0, rate=6.0)
    counts = np.histogram(trace.arrivals, bins=int(trace.duration / 10.0), range=(0.0, trace.duration))[0] / 10.0
    calm = 6.0 / (5 / 6 + 5 / 6)
    is_burst = counts > 2.5 * calm
    assert is_burst.mean() == pytest.approx(1 / 6, rel=0.25)
    assert np.median(counts[~is_burst]) == pytest.approx(calm, rel=0.1)
    assert np.median(counts[is_burst]) == pytest.approx(5 * calm, rel=0.1)


def test_noon_has_nineteen_times_the_rate_of_midnight():
    trace = made("diurnal", duration=DAY, rate=10.0)
    hours = np.histogram(trace.arrivals, bins=24, range=(0.0, DAY))[0] / 3600.0
    assert hours[12] == pytest.approx(19.0, rel=0.05)
    assert hours[0] == pytest.approx(1.05, rel=0.15)


def test_a_flash_crowd_comes_after_a_third_of_the_time_with_fifteen_times_the_rate():
    trace = made("flash")
    minutes = np.histogram(trace.arrivals, bins=240, range=(0.0, trace.duration))[0]
    assert minutes.argmax() in {80, 81}
    assert minutes[81] / minutes[:79].mean() == pytest.approx(1 + 14 * np.exp(-70 / 300), rel=0.15)


def test_a_job_is_five_thousand_images_within_ten_seconds():
    trace = made("jobs", rate=2.0)
    seconds = np.histogram(trace.arrivals, bins=int(trace.duration), range=(0.0, trace.duration))[0]
    in_jobs = seconds[seconds > 100].sum()
    assert in_jobs == pytest.approx(JOB * round(trace.duration / JOB), rel=0.01)
    assert seconds.max() >= 450


def test_timers_of_azure_fire_on_the_minute():
    trace = made("azure", rate=50.0)
    on_the_minute = np.isclose(trace.arrivals % 60.0, 0.0)
    assert 0.002 < on_the_minute.mean() < 0.08


# --- inputs ---


def test_heavy_inputs_have_their_share_and_it_flips_halfway():
    trace = made("poisson", inputs=Inputs(Curve(each=0.15), Heavy(3.0, 0.02, 0.25)), rate=20.0)
    heavy, late = trace.each == 3.0, trace.arrivals >= trace.duration / 2
    assert heavy[~late].mean() == pytest.approx(0.02, abs=0.003)
    assert heavy[late].mean() == pytest.approx(0.25, abs=0.006)
    assert set(trace.each) == {0.15, 3.0}
    assert trace.nbytes[heavy].min() > 10 * trace.nbytes[~heavy].max()


def test_arrivals_do_not_depend_on_what_inputs_take():
    assert made("gamma").arrivals.tolist() == made("gamma", inputs=Inputs(Curve(), Heavy(3.0, 0.5))).arrivals.tolist()


def test_varied_inputs_have_the_mean_and_the_variation_asked_for():
    each = made("poisson", inputs=Inputs(Curve(each=0.2), varies=1.5), rate=50.0).each
    assert each.mean() == pytest.approx(0.2, rel=0.02)
    assert each.std() / each.mean() == pytest.approx(1.5, rel=0.1)


def test_measured_inputs_come_in_the_measured_mix():
    times = ServiceTimes(buckets={10: Bucket(0.1, 30.0, 0.0), 20: Bucket(2.0, 10.0, 0.0)})
    trace = made("poisson", inputs=Inputs(Curve(each=0.1), measured=times))
    assert (trace.each == 2.0).mean() == pytest.approx(0.25, abs=0.01)
    assert set(trace.nbytes[trace.each == 2.0]) == {2**20}


def test_curves_and_heavy_inputs_are_read_from_text():
    curve = parse_curve("0.02 + 0.004*b", 16)
    assert (curve.fixed, curve.each, curve.max_batch) == (0.02, 0.004, 16)
    assert parse_curve("0.02+4e-3b", 16) == curve
    assert parse_heavy("3:0.02") == Heavy(3.0, 0.02)
    assert parse_heavy("3:0.02:0.25") == Heavy(3.0, 0.02, 0.25)
    for wrong in ("0.02", "b", "-1+2b", "0.1+b"):
        with pytest.raises(ValueError, match="no curve"):
            parse_curve(wrong, 1)
    for wrong in ("3", "3:2", "0:0.5", "a:b", "3:0.1:0.2:0.3"):
        with pytest.raises(ValueError, match="no heavy inputs"):
            parse_heavy(wrong)
