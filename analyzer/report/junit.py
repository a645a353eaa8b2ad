"""The report as JUnit XML: a run is a test suite, a finding a test case that failed.

Findings of ``warning`` and worse fail, ``info`` passes, a rule that could not be checked is skipped.
What could not be read is an error; files that are merely nothing of ours are skipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree as xml

from analyzer.model import Finding, NotApplicable, Problem, Report, RunReport
from analyzer.report import wording
from analyzer.report.escape import plain_block

NAME = "junit"
SUFFIX = ".xml"


def render(report: Report, **_: object) -> str:
    root = xml.Element("testsuites", name="analyzer")
    for run in report.runs:
        root.append(_run_suite(run))
    if report.problems:
        root.append(_problem_suite(report.problems))
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(root, encoding="unicode") + "\n"


def _run_suite(report: RunReport) -> xml.Element:
    cases = [_verdict_case(report)]
    cases += [_finding_case(report, finding) for finding in report.findings]
    cases += [_skipped_case(report, entry) for entry in report.not_applicable]
    suite = _suite(report.run.name, cases)
    if report.problems:
        xml.SubElement(suite, "system-err").text = _problem_lines(report.problems)
    return suite


def _problem_suite(problems: Iterable[Problem]) -> xml.Element:
    cases = []
    for problem in problems:
        case = _case("problems", problem.path)
        if problem.kind in wording.REMARKS:
            xml.SubElement(case, "skipped", message=_clean(problem.message))
        else:
            xml.SubElement(case, "error", type=_clean(problem.kind), message=_clean(problem.message))
        cases.append(case)
    return _suite("problems", cases)


def _suite(name: str, cases: list[xml.Element]) -> xml.Element:
    suite = xml.Element("testsuite", name=_clean(name), tests=str(len(cases)))
    for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(key, str(sum(case.find(tag) is not None for case in cases)))
    suite.extend(cases)
    return suite


def _verdict_case(report: RunReport) -> xml.Element:
    """Every run has one case, so that a healthy one is seen to have passed."""
    case = _case(report.run.name, "verdict")
    word = wording.VERDICT_WORDS[report.verdict]
    if report.verdict == "not-assessed":
        xml.SubElement(case, "skipped", message=word)
    else:
        xml.SubElement(case, "system-out").text = word
    return case


def _finding_case(report: RunReport, finding: Finding) -> xml.Element:
    where = wording.scope(finding)
    case = _case(report.run.name, f"{finding.rule} ({where})" if where else finding.rule)
    if finding.severity == "info":
        xml.SubElement(case, "system-out").text = _details(finding)
    else:
        message = _clean(f"{finding.title}: {finding.summary}")
        failure = xml.SubElement(case, "failure", type=finding.severity, message=message)
        failure.text = _details(finding)
    return case


def _skipped_case(report: RunReport, entry: NotApplicable) -> xml.Element:
    case = _case(report.run.name, entry.rule)
    xml.SubElement(case, "skipped", message=_clean(entry.reason or ", ".join(entry.missing)))
    return case


def _case(classname: str, name: str) -> xml.Element:
    return xml.Element("testcase", classname=_clean(classname), name=_clean(name), time="0")


def _details(finding: Finding) -> str:
    facts = [wording.step_range(finding.steps), f"confidence {wording.percent(finding.confidence)}"]
    lines = [finding.title, finding.summary, ", ".join(filter(None, facts))]
    lines += [f"{e.feature}: {wording.comparison(e)}" for e in finding.evidence]
    lines += [f"possible cause: {c.text} ({wording.percent(c.likelihood)})" for c in finding.causes]
    lines += [f"try: {r.title}" for r in finding.remedies]
    return _clean("\n".join(lines))


def _problem_lines(problems: Iterable[Problem]) -> str:
    return _clean("\n".join(f"{p.path}: {p.message} ({p.kind})" for p in problems))


def _clean(text: str) -> str:
    """The text without the characters that XML 1.0 forbids: all of them are hidden ones."""
    return plain_block(text)
