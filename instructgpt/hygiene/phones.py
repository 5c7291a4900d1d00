"""Where telephone numbers stand in a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import phonenumbers

_GAP = r"(?:[ \xa0]?[().\-/\u2010-\u2013][ \xa0]?\(?|[ \xa0]\(?)"
_DASH = re.compile("[\u2010-\u2013]")
_NUMBER = re.compile(
    rf"(?<![\w+])(?<!\d[.,/-])(?:\+\(?|\()?\d{_GAP}?(?:\d{_GAP}?){{5,16}}\d(?![\w+]|[.,/-]\d| ?=)"
)
_AMERICAN = re.compile(
    r"(?:\+?1[ .-]?)?(?:\([2-9]\d\d\)[ -]?\d{3}[ .-]|[2-9]\d\d([-.])\d{3}\1)\d{4}"
)
_AMERICAN_BY_SPACES = re.compile(r"(?:1[ -])?[2-9]\d\d[ -]\d{3}[ -]\d{4}")
_TRUNK = re.compile(r"\(?0[1-9]\d*\)?(?:[ \xa0./()-]{1,3}\d+)+")
_NO_PHONE = re.compile(
    r"\(?(?:\d\.\d|\d{1,3}(?:\.\d{1,3}){3}$|(?:19|20)\d\d[-./ ]\d\d?[-./ ]\d\d?(?!\d)"
    r"|\d\d?[-./ ]\d\d?[-./ ](?:19|20)\d\d(?!\d))"
)
_CALL = re.compile(
    r"(?<![a-z])(?:tele?phones?|tel|phones?|ph|mobile|cell|calls?|fax|whatsapp|sms|ring|dial|hotline"
    r"|telefon\w*|handy|tél|téléphone|móvil|teléfono|(?:text|reach|contact) (?:me|us|him|her)"
    r"|(?:contact|my|phone)[ _]number)(?![a-z])\.?"
    r"(?:[\W_]{0,3}(?<![a-z])(?:numbers?|no|nr|num|is|at|me|us|him|her|on|line|under|the|my|our|to"
    r"|office|directly|now|today|free)\b\.?)*[\s:#=(\"'-]{0,6}\Z",
    re.IGNORECASE,
)
_OTHER = re.compile(
    r"(?:\b(?:order|invoice|ticket|ref|reference|case|serial|part|sku|model|isbn(?:-1[03])?|issn"
    r"|account|id|tracking|version|patent|doi|pmid|zip|po|item|batch|lot|pages?|pp|no)\b\.?"
    r"(?:\W{0,3}\b(?:number|no|nr|id|is|code)\b\.?)*[\s:=-]{0,3}|[#$€£=*^/+])\s*\Z",
    re.IGNORECASE,
)


def phones(text: str, regions: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Telephone numbers.

    An international number must be one that its country gives, or be grouped and as long as these
    are; a national one must begin with 0 and be one of the regions, or have the shape of the
    American ones, 202-555-0143; after a word like "phone" any seven to seventeen digits will do.
    None is a date, and none follows a word like "order".

    Args:
        text: where to look.
        regions: two letters of each country whose national numbers are known.
    """
    for match in _NUMBER.finditer(text):
        number = _DASH.sub("-", match[0])
        if _NO_PHONE.match(number):
            continue
        before = text[max(0, match.start() - 40) : match.start()]
        if _CALL.search(before) or (not _OTHER.search(before) and _is_phone(number, regions)):
            yield match.span()


def _is_phone(number: str, regions: Sequence[str]) -> bool:
    if number.startswith(("+", "00")):
        parsed = _parsed("+" + number.lstrip("+0("), None)
        grouped = len(re.findall(r"[^+\d]+", number)) >= 2
        return parsed is not None and (
            phonenumbers.is_valid_number(parsed)
            or (grouped and phonenumbers.is_possible_number(parsed))
        )
    if _AMERICAN.fullmatch(number):
        return True
    if _AMERICAN_BY_SPACES.fullmatch(number):
        return "US" in regions and _is_valid(number, "US")
    return _TRUNK.fullmatch(number) is not None and any(
        _is_valid(number, region) for region in regions
    )


def _is_valid(number: str, region: str) -> bool:
    parsed = _parsed(number, region)
    return parsed is not None and phonenumbers.is_valid_number(parsed)


def _parsed(number: str, region: str | None) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return None
