"""Cost against lateness, as a picture. matplotlib is imported here only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dumbwaiter.errors import ConfigError, MissingExtraError
from dumbwaiter.plan.actuation import Native
from dumbwaiter.plan.comparing import Result, pareto

SUFFIXES = (".svg", ".png", ".pdf")
_LOOKS = {
    "work": ("o", "#0b6e4f"),
    "messages": ("s", "#c1666b"),
    "age": ("^", "#d4b483"),
    "native": ("D", "#48639c"),
}
_NONE = 1e-5
"""A share of late answers that is drawn for none at all, on a logarithmic axis."""


def check(path: Path) -> None:
    """Raises ConfigError for a name that says no kind of picture, and MissingExtraError where nothing can draw it."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--output {path} names no kind of picture; end it in {', '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--output {path}: there is no folder {path.absolute().parent}; make it first")
    try:
        import matplotlib  # noqa: F401, ICN001, PLC0415 - heavy, and only where it is asked for
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plan", wanted="--output") from error


def draw(path: Path, results: Sequence[Result], *, chosen: Result, late_after: float, goal: float, title: str) -> None:
    """Write the picture to *path*: every setting with its intervals, the Pareto front, and the *chosen* one."""
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415 - without pyplot, no window is ever opened

    # The same figures make the same file, and its text can be searched.
    with mpl.rc_context({"svg.hashsalt": "dumbwaiter", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(7.5, 4.5), layout="constrained")
        axes = figure.subplots()
        for signal in _LOOKS:
            _points(axes, signal, [one for one in results if _signal(one) == signal])
        front = pareto(results)
        axes.plot([one.cost.mean for one in front], [_share(one) for one in front], color="#333333", lw=1, zorder=1)
        axes.axhline(goal * 100, color="#999999", ls=":", lw=1)
        axes.annotate(
            chosen.setting.name,
            (chosen.cost.mean, _share(chosen)),
            xytext=(12, 18),
            textcoords="offset points",
            arrowprops={"arrowstyle": "->", "color": "#333333"},
        )
        axes.set(
            xlabel="cost",
            ylabel=f"answers later than {late_after:g} s, % (at the bottom: none)",
            title=title,
            yscale="log",
        )
        axes.set_xlim(left=0)
        axes.legend(frameon=False)
        axes.grid(visible=True, alpha=0.25)
        figure.savefig(path, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)


def _points(axes: Any, signal: str, results: Sequence[Result]) -> None:
    if not results:
        return
    marker, color = _LOOKS[signal]
    shares = [_share(one) for one in results]
    axes.errorbar(
        [one.cost.mean for one in results],
        shares,
        xerr=[one.cost.half or 0.0 for one in results],
        yerr=[
            [
                min(share - _NONE * 100, (one.late.half or 0.0) * 100)
                for one, share in zip(results, shares, strict=True)
            ],
            [(one.late.half or 0.0) * 100 for one in results],
        ],
        fmt=marker,
        color=color,
        ms=5,
        lw=0.8,
        label="KEDA's queue length" if signal == "native" else signal,
    )


def _signal(result: Result) -> str:
    rules = result.setting.rules
    return "native" if isinstance(rules, Native) else rules.signal


def _share(result: Result) -> float:
    """In percent."""
    return max(result.late.mean, _NONE) * 100
