"""From a study and the names of analyses to a report: predict what is missing, then let each analysis tell.

OUT/README.md, OUT/all.json       of `all`; OUT/table12.md, OUT/table12.json of a single analysis
OUT/plots/fig4-lspet.png
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geoaware.evaluation.averages import LABELS
from geoaware.evaluation.tables import MISSING, Grid, as_markdown, as_text
from geoaware.report.plots import save
from geoaware.runs.errors import InputError
from geoaware.runs.files import check_own, replacing, without_html
from geoaware.studies.case import Case, Outcome, Run
from geoaware.studies.catalogue import ALL, ANALYSES, Analysis
from geoaware.studies.study import PAPER, Study, StudySet
from geoaware.studies.variants import Bench, Variant

PLOTS = "plots"


@dataclass(frozen=True)
class Report:
    """What was found, ready to be printed and written; its name is that of the analysis, or ``"all"``.

    ``subjects`` are what was compared, as `Matcher.describe` has it, ``sets`` facts on each data set, and
    ``left_out`` says what could not be measured and why, a sentence each.
    """

    name: str
    about: str
    subjects: Mapping[str, Mapping[str, Any]]
    sets: tuple[Mapping[str, Any], ...]
    outcomes: tuple[Outcome, ...]
    left_out: tuple[str, ...]


def conduct(study: Study, name: str, chosen: Sequence[Analysis], *, about: str = "") -> Report:
    """Make analyses of a study; the report's name is that of the analysis, or of several, such as ``"all"``.

    Of several, what a data set does not allow is left out and said so.

    Raises:
        InputError: the one analysis asked for cannot be made of the data.
    """
    work = _Work(study, everything=name not in ANALYSES)
    fitting = [(each, work.fitting(each)) for each in chosen]
    work.predict(fitting)
    outcomes = tuple(outcome for each, sets in fitting for outcome in work.outcomes(each, sets))
    return Report(
        name,
        about,
        _subjects(study),
        tuple(map(_facts, study.sets)),
        outcomes,
        tuple(f"{reason} ({', '.join(names)})" for reason, names in work.left_out.items()),
    )


def wanted(study: Study, chosen: Sequence[Analysis]) -> list[tuple[StudySet, Variant]]:
    """What has to be predicted for analyses, in the order in which it is; what the data lack is left out."""
    work = _Work(study, everything=True)
    return work.wanted([(each, work.fitting(each)) for each in chosen])


def check_places(name: str, out: Path) -> None:
    """Make sure, before the work, that a report goes over nothing but an earlier one.

    Raises:
        InputError: a file of another kind is in its place.
    """
    title, (figures, page) = _title(name), _places(name, out)
    check_own(figures, f'{{"name":"{name}"')
    check_own(page, f"# {title} Made by `geoaware reproduce {name}`")


def _places(name: str, out: Path) -> tuple[Path, Path]:
    """The JSON and the Markdown of a report."""
    return out / f"{name}.json", out / ("README.md" if name == ALL else f"{name}.md")


def _title(name: str) -> str:
    return {ALL: "Results", PAPER: "The paper's tables"}.get(name) or ANALYSES[name].title


def write(report: Report, out: Path) -> Path:
    """Write a report: plots, JSON, then the Markdown that points to them; each file whole or not at all."""
    save({name: figure for each in report.outcomes for name, figure in each.plots.items()}, out / PLOTS)
    content = json.dumps(to_dict(report, out), indent=1, ensure_ascii=False, allow_nan=False)
    figures, path = _places(report.name, out)
    with replacing(figures) as draft:
        draft.write_text(content + "\n", encoding="utf-8", newline="\n")
    with replacing(path) as draft:
        draft.write_text(to_markdown(report), encoding="utf-8", newline="\n")
    return path


_WRITTEN = ("name", "data", "title", "finding", "figures", "left_out")
"""What the JSON has of an outcome as it is."""


def to_dict(report: Report, out: Path) -> dict[str, Any]:
    """Plain values; predictions files by their path below the folder of the report."""
    outcomes = [
        {
            **{key: getattr(each, key) for key in _WRITTEN},
            "predictions": [path.relative_to(out).as_posix() for path in each.predictions],
            "plots": [f"{PLOTS}/{name}.png" for name in each.plots],
        }
        for each in report.outcomes
    ]
    content = {key: getattr(report, key) for key in ("name", "subjects", "sets", "outcomes", "left_out")}
    return {**content, "outcomes": outcomes}


def to_text(report: Report) -> str:
    """Tables and findings, for a terminal."""
    return "\n\n".join(
        "\n\n".join([_heading(each), as_text(each.grids), each.finding, *each.left_out])
        for each in report.outcomes
    )


def to_markdown(report: Report) -> str:
    """The whole report."""
    parts = [
        f"# {_title(report.name)}",
        f"Made by `geoaware reproduce {report.name}`; {report.name}.json has every figure with all its "
        "digits. "
        f"{report.about}".strip(),
        as_markdown(_subjects_grid(report)),
        as_markdown(_sets_grid(report)),
        _HOW_TO_READ,
    ]
    name = ""
    for each in report.outcomes:
        if each.name != name:
            name = each.name
            parts += [f"## {_heading(replace(each, data=''))}", each.about]
        parts += [f"### {each.data}"] if each.data else []
        parts += [f"> {each.finding}"] if each.finding else []
        parts += [as_markdown(grid) for grid in each.grids]
        parts += [f"![{name}, {plot}]({PLOTS}/{plot}.png)" for plot in each.plots]
        parts += [f"- {line}" for line in each.left_out]
    if report.left_out:
        parts += ["## Left out", "\n".join(f"- {line}" for line in report.left_out)]
    return without_html("\n\n".join(parts) + "\n")


_HOW_TO_READ = (
    "All figures are per cent. *geo.*: on the geometry-aware subset. Intervals in tables are 95 % "
    "bootstraps over pairs; those of differences compare pair by pair, per image, and allow for images "
    "that several pairs share. *Higher* and *lower* are said where the whole interval of the difference is "
    "on that side of 0; where nothing differs, one in twenty such statements is wrong by chance. Rows "
    "called *paper* are the paper's, of SPair-71k with Stable Diffusion 1.5 and DINOv2 features: another "
    "data set and other features than ours unless said otherwise. Every figure of ours is what `geoaware "
    "score` prints for the predictions file that the JSON names."
)


@dataclass
class _Work:
    """What is done for a report, with the names of the analyses for which something is left out, by reason.

    Only where everything is asked for is something left out: a single analysis that cannot be made is an
    error, an `InputError`, as is a training that cannot be.
    """

    study: Study
    everything: bool
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    runs: dict[tuple[str, Variant], Run] = field(default_factory=dict)

    def fitting(self, analysis: Analysis) -> list[StudySet]:
        """The data sets that an analysis can be made of."""
        candidates, reason = self._candidates(analysis)
        found, partly = [], []
        reasons = [reason] if reason else []
        for of in candidates:
            missing = [why for what in analysis.requires if (why := of.lacks(what)) is not None]
            if skipped := of.config.skip.get(analysis.name):
                missing.insert(0, f"{of.title}: {skipped}")
            if not missing:
                found.append(of)
                partly += [why for what in analysis.partly if (why := of.lacks(what)) is not None]
            reasons += missing
        if not self.everything and (not found or (partly and len(self.study.sets) == 1)):
            raise InputError(
                f"{analysis.name} ({analysis.title}) cannot be made: {[*reasons, *partly][0]}\n"
                "remedy: choose data that has it; `geoaware reproduce all` leaves out what is not possible",
                "dataset",
            )
        for why in reasons:
            self.left_out[why].append(analysis.name)
        for why in partly:
            self.left_out[why].append(f"a row of {analysis.name}")
        return found

    def _candidates(self, analysis: Analysis) -> tuple[list[StudySet], str]:
        """The data sets that an analysis is about, or those it is tested on; or why there is none."""
        sets, as_in_paper = self.study.sets, self.study.as_in_paper
        if not analysis.trains:
            return [of for of in sets if not as_in_paper or of.config.label in analysis.needs], ""
        training = self.study.trainings.get(analysis.name)
        if training is None:
            return [], "no training is named; give its configuration (config), or name it in the study"
        found = [of for of in sets if not training.tests or of.config.label in training.tests]
        tests = ", ".join(training.tests)
        return found, "" if found else f"none of the data sets that the training is tested on ({tests})"

    def _variants(self, of: StudySet, analysis: Analysis) -> list[Variant]:
        """What an analysis needs of a data set."""
        masks = "masks" not in analysis.partly or of.lacks("masks") is None
        bench = self.study.bench_of(of)
        return [each for each in analysis.variants(bench) if masks or each.pose != "masks"]

    def wanted(
        self, fitting: Sequence[tuple[Analysis, Sequence[StudySet]]]
    ) -> list[tuple[StudySet, Variant]]:
        """Every run that is needed, by data set and subject, so that features are shared.

        Those without alignment go first: they need the images upright only, of which more fit in memory.
        """
        wanted = []
        for of in self.study.sets:
            subjects = self.study.bench_of(of).subjects
            needed = (each for one, sets in fitting if of in sets for each in self._variants(of, one))
            ordered = sorted(
                dict.fromkeys(needed), key=lambda each: (subjects.index(each.subject), each.pose != "off")
            )
            wanted += [(of, variant) for variant in ordered]
        return wanted

    def predict(self, fitting: Sequence[tuple[Analysis, Sequence[StudySet]]]) -> None:
        """Make every run that is needed."""
        wanted = self.wanted(fitting)
        for number, (of, variant) in enumerate(wanted, start=1):
            count = f"({number} of {len(wanted)})"
            self.runs[of.config.label, variant] = self.study.run(of, variant, count)
        self.study.forget()

    def outcomes(self, analysis: Analysis, sets: Sequence[StudySet]) -> Iterator[Outcome]:
        """What an analysis finds, data set by data set or on all of them together."""
        groups = [sets] if analysis.together and sets else [[of] for of in sets]
        for group in groups:
            of = None if analysis.together else group[0]
            if analysis.make is not None:
                yield _named(analysis.make(*(self._case(each, analysis) for each in group)), analysis, of)
            if analysis.work is not None:
                try:
                    yield from [_named(each, analysis, of) for each in analysis.work(self.study, *group)]
                except InputError as error:
                    if not self.everything or analysis.trains:
                        raise
                    self.left_out[f"{group[0].title}: {str(error).splitlines()[0]}"].append(analysis.name)

    def _case(self, of: StudySet, analysis: Analysis) -> Case:
        label = of.config.label
        return Case(label, of.title, {each: self.runs[label, each] for each in self._variants(of, analysis)})


def _named(outcome: Outcome, analysis: Analysis, of: StudySet | None) -> Outcome:
    """The outcome with headings; of one data set, with its title in them and its label in plots."""
    suffix = "" if of is None else f"-{of.config.label}"
    titles = ("", outcome.data) if of is None else (of.title, outcome.data)
    return replace(
        outcome,
        name=analysis.name,
        title=outcome.title or analysis.title,
        about=analysis.about,
        data=": ".join(dict.fromkeys(filter(None, titles))),
        plots={f"{name or analysis.name}{suffix}": figure for name, figure in outcome.plots.items()},
    )


def _heading(outcome: Outcome) -> str:
    return " · ".join(each for each in (outcome.name, outcome.title, outcome.data) if each)


def _subjects(study: Study) -> dict[str, dict[str, Any]]:
    """What is compared, and once more what is other on some data sets, with their labels."""
    found = {each: _described(study.bench, each) for each in study.bench.subjects}
    for label, bench in study.benches.items():
        of = {each: _described(bench, each) for each in bench.subjects}
        found |= {f"{each} ({label})": about for each, about in of.items() if about != found.get(each)}
    return found


def _described(bench: Bench, subject: str) -> dict[str, Any]:
    """Features, settings and versions of a subject as matched by default."""
    matcher = bench.setup(Variant(subject), "paper").matcher
    return {**matcher.describe(), "pose": matcher.pose, "stored": matcher.extractor.stored}


def _facts(of: StudySet) -> dict[str, Any]:
    return {
        "label": of.config.label,
        "title": of.title,
        "about": of.config.about,
        "dataset": of.data.name,
        "split": of.data.split,
        "pairs": len(of.data),
        "images": len(of.data.images),
        "categories": len(of.data.categories),
        "protocol": of.protocol.name,
        "averaging": of.protocol.averaging,
        "notes": list(of.data.notes),
    }


def _subjects_grid(report: Report) -> Grid:
    rows = []
    for name, each in report.subjects.items():
        settings, rule, pose = each["settings"], each["pose_rule"], each["pose"]
        if pose != "off":
            pose += f" by {rule['distance']}" + (f", margin {rule['margin']:g}" if rule["margin"] else "")
        blend = f"{each['blend']:g}" if "blend" in each else MISSING
        rows.append((name, blend, f"{settings['window']}", f"{settings['temperature']:g}", pose))
    several = report.subjects.values()
    first = next(iter(several))
    networks = dict.fromkeys(each["post_processor"] for each in several if "post_processor" in each)
    note = (
        f"Features: {first['extractor']}, computed in {first['dtype']}, kept as "
        f"{first['stored'] or first['dtype']}. "
        + "".join(f"Post-processor: SHA-256 {weights}. " for weights in networks)
        + f"Versions: {', '.join(f'{name} {version}' for name, version in first['versions'].items())}."
    )
    columns = ("subject", "blend", "window", "temperature", "pose alignment")
    return Grid("What was compared, as it is matched by default", columns, tuple(rows), note)


def _sets_grid(report: Report) -> Grid:
    rows = []
    for each in report.sets:
        counts = (f"{each[key]:,}" for key in ("pairs", "images"))
        rows.append((each["title"], *counts, each["protocol"], LABELS[each["averaging"]], each["about"]))
    return Grid("Data sets", ("data set", "pairs", "images", "protocol", "average", "what"), tuple(rows))
