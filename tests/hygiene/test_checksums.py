"""Check digits against published numbers, and against the change of one digit."""

import pytest

from instructgpt.hygiene.checksums import is_card, is_iban, is_ssn, luhn

_CARDS = """
4111111111111111 4012888888881881 4222222222222 5555555555554444 5105105105105100 2223000048400011
378282246310005 371449635398431 6011111111111117 6011000990139424 30569309025904 38520000023237
3530111333300000 6200000000000005
"""  # test numbers that the issuers publish
_IBANS = """
AD1200012030200359100100 AE070331234567890123456 AT611904300234573201 BE68539007547034
CH9300762011623852957 DE89370400440532013000 DK5000400440116243 ES9121000418450200051332
FI2112345600000785 FR1420041010050500013M02606 GB29NWBK60161331926819 IE29AIBK93115212345678
IT60X0542811101000000123456 MT84MALT011000012345MTLCAST001S NL91ABNA0417164300 NO9386011117947
PL61109010140000071219812874 SA0380000000608010167519 SE4550000000058398257466
TR330006100519786457841326
"""  # examples of the registry of ISO 13616
CARDS, IBANS = _CARDS.split(), _IBANS.split()


@pytest.mark.parametrize("number", CARDS)
def test_a_card_fails_when_any_digit_changes(number):
    assert is_card(number)
    for place, digit in enumerate(number):
        other = number[:place] + str((int(digit) + 1) % 10) + number[place + 1 :]
        assert not is_card(other)


@pytest.mark.parametrize("text", IBANS)
def test_an_account_fails_when_a_digit_changes_or_is_lost(text):
    assert is_iban(text)
    for place in range(2, len(text)):
        if text[place].isdigit():
            assert not is_iban(f"{text[:place]}{(int(text[place]) + 1) % 10}{text[place + 1 :]}")
    assert not is_iban(text[:-1])
    assert not is_iban("XX" + text[2:])  # no such country


def test_luhn_by_hand():
    # 1 7 2 3 6: from the right 6 + 2*3 + 2 + (2*7 = 14 -> 5) + 1 = 20
    assert luhn("17236")
    assert not luhn("17237")


def test_numbers_that_no_issuer_gives_are_no_cards():
    # All pass the check of digits; prefix or length is nobody's.
    for number in ["0000000000000000", "9780306406157", "1234567812345670", "41111111111111111"]:
        assert not is_card(number)


def test_social_security_numbers_that_are_never_given():
    assert is_ssn("078051120")
    assert not any(map(is_ssn, ["000121234", "666121234", "901121234", "123001234", "123450000"]))
