"""Whether a DICOM image is a frontal chest radiograph, by all tags together.

The view is told by its code and View Position, not by words, which differ by language.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import Enum

from handlers import dicom_codes
from handlers.dicom_elements import Elements, named

REFUSE, WARN = "refuse", "warn"
MODALITIES = frozenset({"CR", "DX"})  # computed and digital radiography


@dataclass(frozen=True)
class Policy:
    """What a site lets be answered, and the ages in years that the network knows."""

    unsuitable: str = REFUSE  # or WARN: answer, and say so
    modalities: frozenset[str] = MODALITIES
    ages: tuple[float, float] | None = None


class Evidence(Enum):
    """What a tag says of a question."""

    YES = "yes"
    NO = "no"
    SILENT = "silent"


_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0, "": 1.0}


def reasons(elements: Elements, policy: Policy) -> Iterator[str]:
    """Why this is no frontal chest radiograph; each names the tags that say so."""
    if _code(elements, "Modality") not in policy.modalities:
        yield f"DICOM {named('Modality')} is none of {', '.join(sorted(policy.modalities))}"
    part, parts = _part(elements)
    if part is Evidence.NO:
        yield f"DICOM {_all(parts[Evidence.NO])} is not CHEST{_against(parts[Evidence.YES])}"
    view, views = _view(elements)
    if view is Evidence.NO:
        against = _against(views[Evidence.YES])
        if "ViewPosition" not in views[Evidence.NO] and not against:
            against = f", {named('ViewPosition')} is missing or unknown"
        yield f"DICOM {_all(views[Evidence.NO])} is neither PA nor AP{against}"


def doubts(elements: Elements, policy: Policy) -> Iterator[str]:
    """What a reader of the answer should know, though it is answered."""
    part, parts = _part(elements)
    if part is Evidence.SILENT:
        yield f"DICOM {named('BodyPartExamined')} is missing: taken for a chest"
    elif part is Evidence.YES and parts[Evidence.NO]:
        yield f"DICOM {_all(parts[Evidence.NO])} is not CHEST, but {_all(parts[Evidence.YES])} is"
    if _view(elements)[0] is Evidence.SILENT:
        yield f"DICOM {named('ViewPosition')} is missing or unknown: taken for frontal"
    if _code(elements, "PresentationIntentType") == "FOR PROCESSING":
        yield (
            f"DICOM {named('PresentationIntentType')} is FOR PROCESSING: raw values, which the "
            "network was not trained on; send the image for presentation"
        )
    if policy.ages is not None:
        low, high = policy.ages
        strange = [tag for tag, age in _ages(elements) if not low <= age < high + 1]
        if strange:
            yield (
                f"the patient's age, by DICOM {_all(strange)}, is not within the training images' "
                f"{low:g} to {high:g} years"
            )


Sources = dict[Evidence, list[str]]


def _sources() -> Sources:
    return {evidence: [] for evidence in Evidence}


def _all(keywords: list[str]) -> str:
    return " and ".join(named(keyword) for keyword in keywords)


def _against(keywords: list[str]) -> str:
    return f", in contradiction to {_all(keywords)}" if keywords else ""


def _part(elements: Elements) -> tuple[Evidence, Sources]:
    """Whether the chest was examined, and what each tag says of it.

    Body Part Examined and the coded region decide; descriptions, which are of a whole study, only
    where neither says anything, or where Body Part Examined is in no language known here.
    """
    sources = _sources()
    body_part = _words(elements.text("BodyPartExamined"))
    coded = _sources()
    if body_part and body_part.replace(" ", "") not in dicom_codes.UNSPOKEN:
        coded[_chest(body_part) or Evidence.NO].append("BodyPartExamined")
    for item in elements.items("AnatomicRegionSequence"):
        values = _codes(item)
        says = (
            Evidence.YES
            if values & dicom_codes.CHEST_CODES
            else _chest(_words(item.text("CodeMeaning")))
        )
        if says is not None:
            coded[says].append("AnatomicRegionSequence")
    described = _sources()
    for keyword in ("ProtocolName", "SeriesDescription", "StudyDescription"):
        says = _chest(_words(elements.text(keyword)))
        if says is not None:
            described[says].append(keyword)
    for evidence in Evidence:
        sources[evidence] = [*coded[evidence], *described[evidence]]
    unread = body_part and _chest(body_part) is None  # neither chest nor another part known here
    if coded[Evidence.NO] == ["BodyPartExamined"] and unread and sources[Evidence.YES]:
        return Evidence.YES, sources
    if coded[Evidence.NO]:
        return Evidence.NO, sources
    if coded[Evidence.YES] or described[Evidence.YES]:
        return Evidence.YES, sources
    return (Evidence.NO if described[Evidence.NO] else Evidence.SILENT), sources


def _chest(words: str) -> Evidence | None:
    """YES where the words name the chest alone, NO where they name another part."""
    other = dicom_codes.OTHER_PART.search(dicom_codes.CHEST.sub(" ", words))
    if re.search(rf"\b(PORT|RX|RTG)?{dicom_codes.CHEST.pattern}", words):
        joined = " " not in words  # one term for several parts, such as CHESTABDOMEN (PS3.16, L)
        return Evidence.NO if other and joined else Evidence.YES
    return Evidence.NO if other else None


def _words(text: str) -> str:
    """Upper case, without accents; all that is no letter or digit is a space."""
    plain = unicodedata.normalize("NFKD", text.upper())
    kept = (letter for letter in plain if not unicodedata.combining(letter))
    return " ".join(re.sub(r"[\W_]+", " ", "".join(kept)).split())


def _view(elements: Elements) -> tuple[Evidence, Sources]:
    """Whether the view is frontal: one tag that says otherwise is enough."""
    sources = _sources()
    position = _code(elements, "ViewPosition")
    if position in dicom_codes.FRONTAL | dicom_codes.NOT_FRONTAL:
        says = Evidence.YES if position in dicom_codes.FRONTAL else Evidence.NO
        sources[says].append("ViewPosition")
    for item in elements.items("ViewCodeSequence"):
        values = _codes(item)
        if values & dicom_codes.FRONTAL_CODES:
            says = Evidence.YES
        elif values & dicom_codes.NOT_FRONTAL_CODES or re.search(
            r"\b(LATERAL|OBLIQUE)\b", _words(item.text("CodeMeaning"))
        ):  # the word where the code itself is unknown
            says = Evidence.NO
        else:
            continue
        if "ViewCodeSequence" not in sources[says]:
            sources[says].append("ViewCodeSequence")
    if sources[Evidence.NO]:
        return Evidence.NO, sources
    return (Evidence.YES if sources[Evidence.YES] else Evidence.SILENT), sources


def _codes(item: Elements) -> set[str]:
    """The code values of an item, in SNOMED's schemes (PS3.3, 8.8)."""
    if _code(item, "CodingSchemeDesignator") not in dicom_codes.SNOMED:
        return set()
    return {_code(item, keyword) for keyword in ("CodeValue", "LongCodeValue")}


def _code(elements: Elements, keyword: str) -> str:
    return elements.text(keyword).upper()


def _ages(elements: Elements) -> Iterator[tuple[str, float]]:
    """(tag, years) of every tag that tells the patient's age at the study."""
    match = re.fullmatch(r"\s*(\d{1,3})([DWMY]?)\s*", elements.text("PatientAge"), re.ASCII)
    if match:  # PS3.5, 6.2: nnnD, nnnW, nnnM, nnnY; without a unit, years
        yield "PatientAge", int(match[1]) * _YEARS[match[2]]
    birth = _date(elements.text("PatientBirthDate"))
    days = (
        day
        for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
        if (day := _date(elements.text(keyword))) is not None
    )
    study = next(days, None)
    if birth is not None and study is not None and birth <= study:
        yield "PatientBirthDate", (study - birth).days / 365.25


def _date(text: str) -> date | None:
    """A date as PS3.5, 6.2 has it: YYYYMMDD, formerly YYYY.MM.DD."""
    match = re.fullmatch(r"(\d{4})(\.?)(\d{2})\2(\d{2})", text, re.ASCII)
    try:
        return date(int(match[1]), int(match[3]), int(match[4])) if match else None
    except ValueError:
        return None
