"""Numbers of cards, accounts and people: what makes a row of digits one of them."""

from __future__ import annotations

import re

# How long the account numbers of each country are (ISO 13616).
_COUNTRIES = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
_LENGTHS = {name: length for length, names in _COUNTRIES.items() for name in names.split()}
# Issuers: Visa, Mastercard, American Express, Discover, JCB, Diners, UnionPay.
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}"
    r"|35(?:2[89]|[3-8]\d)\d{12}"
    r"|3(?:0[0-5]|[689]\d)\d{11}"
    r"|62\d{14,17}"
)
_SSN = re.compile(r"(?!000|666|9)\d{3}(?!00)\d{2}(?!0000)\d{4}")


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812).

    Args:
        digits: nothing else.

    Examples:
        >>> luhn("79927398713"), luhn("79927398710")
        (True, False)
    """
    doubled = "0246813579"  # of each digit, its own digits added up
    odd, even = digits[-1::-2], digits[-2::-2]
    return (sum(map(int, odd)) + sum(int(doubled[int(digit)]) for digit in even)) % 10 == 0


def is_card(digits: str) -> bool:
    """Whether an issuer of cards could have given this number.

    Args:
        digits: nothing else.

    Examples:
        >>> is_card("4111111111111111"), is_card("4111111111111112"), is_card("0000000000000000")
        (True, False, False)
    """
    return _CARD.fullmatch(digits) is not None and luhn(digits)


def iban_length(text: str) -> int:
    """How many letters and digits an account number of this country has; 0 for no country.

    Args:
        text: begins with the two letters of the country.
    """
    return _LENGTHS.get(text[:2].upper(), 0)


def is_iban(text: str) -> bool:
    """Whether this is an international account number (ISO 13616): length and check digits.

    Args:
        text: letters and digits, nothing between them.

    Examples:
        >>> is_iban("GB82WEST12345698765432"), is_iban("GB83WEST12345698765432")
        (True, False)
    """
    if len(text) != iban_length(text) or not (text.isascii() and text.isalnum()):
        return False
    return int("".join(str(int(sign, 36)) for sign in text[4:] + text[:4])) % 97 == 1


def is_ssn(digits: str) -> bool:
    """Whether this can be the social security number of a person in the United States.

    Args:
        digits: nine of them.

    Examples:
        >>> is_ssn("536104398"), is_ssn("666104398"), is_ssn("900104398"), is_ssn("536004398")
        (True, False, False, False)
    """
    return _SSN.fullmatch(digits) is not None
