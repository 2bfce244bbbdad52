"""Cost against lateness, as a picture. matplotlib is imported here only."""

from __future__ import annotations

import textwrap
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
_LINE = 0.19
"""Inches of a line of the legend."""
_OTHER_LINES = 11
"""Lines of the legend, at most, that name no setting; and those beneath and above it."""
_WIDTH = 36
"""Letters of a line of the legend."""


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
    """Write the picture to *path*: every setting with its intervals, the Pareto front and the *goal*. Those of the
    front have numbers, which the legend names, and so has the *chosen* one, with a ring, where it meets the goal.
    """
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415 - without pyplot, no window is ever opened

    front, best = pareto(results), chosen if chosen.meets(goal) else None
    named = sorted({id(one): one for one in (*front, *([best] if best else []))}.values(), key=_place)
    names = [_name(one, results) for one in named]
    lines = sum(name.count("\n") + 1 for name in names) + _OTHER_LINES
    # The same figures make the same file, and its text can be searched.
    with mpl.rc_context({"svg.hashsalt": "dumbwaiter", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, max(4.5, _LINE * lines)), layout="constrained")
        axes = figure.subplots()
        for signal in _LOOKS:
            _points(axes, signal, [one for one in results if _signal(one) == signal])
        _lines(axes, front, goal, is_met=best is not None)
        if best:
            label = f"recommended: {named.index(best) + 1}"
            axes.plot(*_place(best), "o", ms=13, mfc="none", mec="#333333", ls="", label=label)
        for number, (one, name) in enumerate(zip(named, names, strict=True), 1):
            _number(axes, number, one, name)
        axes.set(
            xlabel="cost of all workers for the whole trace (worker-hours times the price of an hour)",
            ylabel=f"answers later than {late_after:g} s, %{_bottom(results)}",
            title=title,
            yscale="log",
        )
        axes.margins(y=0.08)
        axes.set_xlim(left=0)
        axes.grid(visible=True, alpha=0.25)
        axes.yaxis.set_major_formatter("{x:g}")
        _legend(axes, "bars: 95 % confidence" if any(one.late.half is not None for one in results) else None)
        figure.savefig(path, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)


def _lines(axes: Any, front: Sequence[Result], goal: float, *, is_met: bool) -> None:
    axes.plot(*zip(*map(_place, front), strict=True), color="#333333", lw=1, zorder=1, label="Pareto front")
    unmet = "" if is_met else ",\nwhich none is certain to meet"
    label = f"goal: at most {goal * 100:g} %{unmet}"
    axes.axhline(max(goal, _NONE) * 100, color="#999999", ls=":", lw=1, label=label)


def _name(one: Result, results: Sequence[Result]) -> str:
    """Its name, with those of others at the same place, in lines for the legend."""
    same = [other.setting.name for other in results if other is not one and _place(other) == _place(one)]
    return "\n".join(textwrap.wrap(" = ".join([one.setting.name, *same]), _WIDTH))


def _number(axes: Any, number: int, one: Result, name: str) -> None:
    """The *number* of *one* at its point, below and to the left, where nothing can be beside the front; and its *name*
    in the legend.
    """
    axes.annotate(number, _place(one), (-6, -6), textcoords="offset points", ha="right", va="top")
    axes.plot([], [], marker=f"${number}$", ls="", mew=0, color="#333333", label=name)


def _legend(axes: Any, title: str | None) -> None:
    """Beside the picture; what has intervals first."""
    from matplotlib.container import Container  # noqa: PLC0415

    entries = zip(*axes.get_legend_handles_labels(), strict=True)
    handles, labels = zip(*sorted(entries, key=lambda entry: not isinstance(entry[0], Container)), strict=True)
    axes.legend(
        handles, labels, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), title=title, alignment="left"
    )


def _bottom(results: Sequence[Result]) -> str:
    return " (at the bottom: none)" if any(one.late.mean <= _NONE for one in results) else ""


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


def _place(result: Result) -> tuple[float, float]:
    """Where it is in the picture."""
    return result.cost.mean, _share(result)


def _share(result: Result) -> float:
    """In percent."""
    return max(result.late.mean, _NONE) * 100
