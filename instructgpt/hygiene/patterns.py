"""Where personal data stands in a text, kind by kind.

A pattern proposes and a rule decides: checksums, lists of what exists, the words before. Precision
goes first where the two cannot both be had, for a filter that takes order numbers for telephones is
switched off.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from instructgpt.hygiene.checksums import iban_length, is_card, is_iban, is_ssn

Span = tuple[int, int]


_LOCAL = r"\w[\w+'%-]*(?:\.[\w+'%-]+)*"
_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_EMAIL = re.compile(
    rf"(?<![\w.+-]){_LOCAL}[@\uff20](?:{_LABEL}\.)+(?:xn--[a-z0-9]+|[^\W\d_]{{2,24}})(?!\w)"
)
# Names of files (icon@2x.png) and of packages end like addresses.
_NO_DOMAINS = {"png", "jpg", "jpeg", "gif", "svg", "webp", "bmp", "js", "jsx", "ts", "tsx", "css"}
_NO_DOMAINS |= {
    "html",
    "json",
    "yaml",
    "yml",
    "xml",
    "txt",
    "tgz",
    "gz",
    "git",
    "py",
    "java",
    "cpp",
}
_DOMAINS = "com|org|net|edu|gov|io|info|biz|de|uk|fr|nl|it|es|eu|ch|at|ca|au|us|in|jp|cn|br|ru|pl"
_AT = r"(?:\s*[\[({<]\s*(?:at|@|AT|ät)\s*[\])}>]\s*|\s+(?:at|AT)\s+|\s+@\s+)"
_DOT = r"(?:\s*[\[({<]\s*(?:dot|DOT|\.)\s*[\])}>]\s*|\s+(?:dot|DOT)\s+|\.)"
_HIDDEN = re.compile(
    rf"(?<![\w.@+-])(?P<local>[\w+-]+(?:{_DOT}[\w+-]+)*)(?P<at>{_AT})"
    rf"(?P<domain>(?:[\w-]+{_DOT})+(?:{_DOMAINS}))(?![\w-])",
    re.IGNORECASE,
)
_HINT = re.compile(
    r"[\[({<]\s*(?:at|@|ät)\s*[\])}>]|\sat\s+[\w-]+(?:\.|\s+dot\s|\s*[\[({<]\s*(?:dot|\.))|\s@\s",
    re.IGNORECASE,
)
_WRITE_TO = re.compile(
    r"\b(?:e-?mails?|mails?|contact|reach|write|address)\b.{0,40}\Z", re.I | re.S
)
# Who stands before "at" in a sentence that says where something is.
_NOBODY = """
me us you him her them it i we he she they this that these those is are was were be been am look
looking looked work works working worked shop shops shopping meet live lives stay stays available
found located hosted sold listed posted published here there online website site page pages store
stores stuff things thing people team job jobs sale sales price prices up out one ones day time
order orders buy find visit more back not and or but arrive arrives account accounts start starts
stop stops login sign information info details deals free
"""

_KEY = re.compile(
    r"(?<![\w-])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{40,}"
    r"|sk-(?=[\w-]*\d)[\w-]{20,}|[rs]k_live_[A-Za-z0-9]{20,}|xox[abprs]-[\w-]{10,}|AIza[\w-]{35}|hf_[A-Za-z]{30,}"
    r"|glpat-[\w-]{20}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,})(?![\w-])"
    r"|-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,20}PRIVATE KEY-----|\Z)",
    re.S,
)
_NAMED_KEY = re.compile(
    r"(?<![a-z])(?:api[_ -]?key|(?:secret|access)(?:[_-]access)?[_-]?key|client[_-]?secret|bearer"
    r"|(?:access|auth|api)[_-]?token)[\"']?\s{0,2}[:= ]\s{0,2}[\"']?"
    r"(?=[a-z+/=_-]{0,60}\d)(?P<who>[\w+/=-]{20,200})",
    re.IGNORECASE,
)
_CREDENTIALS = re.compile(
    r"\b[a-z][a-z0-9+.-]{1,20}://(?P<who>[^\s/@:\[\]]*:[^\s/@\[\]]+)@(?=\w)", re.I
)

_CARD = re.compile(
    r"(?<![\w.+-])(?:\d{4}([ .-])\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?|\d{4}([ .-])\d{6}\2\d{4,5}"
    r"|\d{13,19})"
    r"(?![\w-]|[.,]\d)"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ \xa0-]?[A-Z0-9]){11,29}")
_SSN = re.compile(r"(?<![\w.-])\d{3}-\d\d-\d{4}(?![\w-]|\.\d)")
_SSN_BARE = re.compile(
    r"\b(?:ssn|social security(?: number| no\.?)?)\W{0,3}(?:is\s+|:\s*)?"
    r"(?P<who>\d{3}([ -]?)\d\d\2\d{4})(?!\w)",
    re.I,
)
_V4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_V6 = re.compile(
    r"(?<![\w:.])[23][0-9a-f]{3}:[0-9a-f:]{2,34}(?:\d{1,3}(?:\.\d{1,3}){3})?(?![\w:])", re.I
)
_NO_ADDRESS = re.compile(
    r"(?:\b(?:version|ver|v|release|build|section|sec|chapter|clause|article|part|figure|fig|table|"
    r"appendix|firmware|driver|rev)|§|[\w)]/|[=~^<>]=)\W{0,3}\Z",
    re.IGNORECASE,
)


def emails(text: str) -> Iterator[Span]:
    """Addresses of mail, those too that are hidden from robots ("jo at mail dot com")."""
    if "@" in text or "\uff20" in text:
        for match in _EMAIL.finditer(text):
            remote = text[match.end() : match.end() + 1] == ":" and match[0].startswith("git@")
            if not remote and match[0].rpartition(".")[2].lower() not in _NO_DOMAINS:
                yield match.span()
    if _HINT.search(text):
        for match in _HIDDEN.finditer(text):
            if _is_hidden(text, match):
                yield match.span()


def _is_hidden(text: str, match: re.Match[str]) -> bool:
    """Whether "X at Y dot com" is an address and no place where X is."""
    local, at = match["local"].lower(), match["at"].strip().lower()
    if len(at) > 2 or at[0] in "[({<":
        return True
    named = re.search(r"[\d._]|\bdot\b", local) is not None
    asked = _WRITE_TO.search(text[max(0, match.start() - 50) : match.start()]) is not None
    if at == "@":
        return named or asked
    if local in _NOBODY.split():
        return False
    return "." not in match["domain"] or (named and asked)


def keys(text: str) -> Iterator[Span]:
    """Keys and tokens of well-known services, those that are named so, and private keys."""
    for match in _KEY.finditer(text):
        yield match.span()
    for match in _NAMED_KEY.finditer(text):
        yield match.span("who")


def credentials(text: str) -> Iterator[Span]:
    """The user and the password in an address of the net."""
    if "://" in text:
        for match in _CREDENTIALS.finditer(text):
            yield match.span("who")


def cards(text: str) -> Iterator[Span]:
    """Numbers of payment cards: issuer, length and check digit."""
    for match in _CARD.finditer(text):
        if is_card(re.sub(r"\D", "", match[0])):
            yield match.span()


def ibans(text: str) -> Iterator[Span]:
    """International account numbers: country, length and check digits."""
    for match in _IBAN.finditer(text):
        signs = [place for place, sign in enumerate(match[0]) if sign.isalnum()]
        length = iban_length(match[0])
        if not length or len(signs) < length:
            continue
        end = match.start() + signs[length - 1] + 1
        ends = not text[end : end + 1].isalnum()
        if ends and is_iban("".join(match[0][place] for place in signs[:length])):
            yield match.start(), end


def ssns(text: str) -> Iterator[Span]:
    """Social security numbers of the United States: with hyphens, or named as one."""
    for match in _SSN.finditer(text):
        if is_ssn(match[0].replace("-", "")):
            yield match.span()
    for match in _SSN_BARE.finditer(text):
        if is_ssn(re.sub(r"\D", "", match["who"])):
            yield match.span("who")


def addresses(text: str) -> Iterator[Span]:
    """Addresses of the net, version 4 and 6, that are routed in public; no version numbers."""
    for match in _V4.finditer(text):
        before = text[max(0, match.start() - 12) : match.start()]
        if not _NO_ADDRESS.search(before) and _is_public(match[0]):
            yield match.span()
    if "::" in text or text.count(":") >= 7:
        for match in _V6.finditer(text):
            if _is_public(match[0]):
                yield match.span()


def _is_public(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False
