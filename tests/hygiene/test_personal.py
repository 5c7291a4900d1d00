"""Personal data: what is found and what only looks like it, in every place of a row."""

import random
import sys

import pytest
import stand_ins
from hygiene_rows import comparison, demonstration

from instructgpt.hygiene.personal import PATTERNS, PersonalData, _analyzer
from instructgpt.types import UserError

RULE = PersonalData()
MASKING = PersonalData(action="mask", splits="all")

FOUND = [
    ("Write to jo.doe+news@sub.example.co.uk.", "Write to [EMAIL]."),
    ("jürgen@müller.de, 用户@例子.广告", "[EMAIL], [EMAIL]"),
    ("<a href='mailto:a.b@c.org'>", "<a href='mailto:[EMAIL]'>"),
    ("name at domain dot com", "[EMAIL]"),
    ("jo [at] mail [dot] org or jo(at)mail.org", "[EMAIL] or [EMAIL]"),
    ("e-mail me: sam@corp.io:", "e-mail me: [EMAIL]:"),
    ("Call +1 202-555-0143 or (415) 555-2671.", "Call [PHONE] or [PHONE]."),
    ("+44 20 7946 0958, +49 (0)30 901820", "[PHONE], [PHONE]"),
    ("0033 6 12 34 56 78; 020 7946 0958", "[PHONE]; [PHONE]"),
    ("My phone number is 5550143", "My phone number is [PHONE]"),
    ("card 4111 1111 1111 1111, exp 12/27", "card [CARD], exp 12/27"),
    ("3782-822463-10005", "[CARD]"),
    ("Pay to DE89 3704 0044 0532 0130 00 today", "Pay to [IBAN] today"),
    ("GB29NWBK60161331926819.", "[IBAN]."),
    ("SSN 536-10-4398 or ssn: 536104398", "SSN [SSN] or ssn: [SSN]"),
    ("http://93.184.216.34:80/x from 2a00:1450:4001::200e", "http://[IP]:80/x from [IP]"),
    ("postgres://bob:s3cret@db.host.com/x", "postgres://[CREDENTIALS]@db.host.com/x"),
    ("export K=AKIAIOSFODNN7EXAMPLE", "export K=[KEY]"),
    ("redis://:s3cret@10.0.0.1:6379", "redis://[CREDENTIALS]@10.0.0.1:6379"),
    ("API_KEY = 'abcdef1234567890abcdef'", "API_KEY = '[KEY]'"),
    ('{"phone_number": "4155552671"}', '{"phone_number": "[PHONE]"}'),
    ("text me at 4155552671, 415\u2013555\u20132671", "text me at [PHONE], [PHONE]"),
    ("https://a.com/?email=jo@mail.de&x=1", "https://a.com/?email=[EMAIL]&x=1"),
    ("jo\uff20mail.de 'jo@mail.de'", "[EMAIL] '[EMAIL]'"),
    ("4111.1111.1111.1111", "[CARD]"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n", "[KEY]\n"),
]
NOT_FOUND = """
Order 123-4567890-1234567 | order 415-555-2671 | INV-2024-001234 | 1234567890 | 20240318
version 10.0.19041.1 | v1.2.3.4 | Chrome/120.0.6099.109 | pkg==1.2.3.4 | lodash@4.17.21
192.168.0.1 and 127.0.0.1 | 10.0.0.7 | fe80::1 | 12:30:45 | 00:1a:2b:3c:4d:5e | std::vector<int>
2024-03-18T12:30:45 | 18.03.2024 | 03/18/2024 | 1914-1918 | ISBN 978-3-16-148410-0 | 0-306-40615-2
3 + 12345678 = 12345681 | 3.14159265358979 | 1 000 000 000 | 1,234,567.89 | 12 345 678 901 34
4111111111111112 | 0000000000000000 | DE88370400440532013000 | be70669b775c942e | 666-10-4398
git@github.com:a/b.git | icon@2x.png | @app.route('/x') | x = a @ b.T | @handle
meet me at amazon dot com | who works at acme dot com | look at example.com | we arrived at 5.30
https://example.com/a/123456789?id=1234567890 | arXiv:2203.02155 | doi 10.1145/3442188.3445922
sk-learn-compatible-transformers-api | api_key = your_api_key_goes_right_here | 415 555
550e8400-e29b-41d4-a716-446655440000 | The phone cost 1200 in 2020 | 51.507351, -0.127758
"""


@pytest.mark.parametrize(("text", "masked"), FOUND)
def test_what_is_found(text, masked):
    assert RULE.mask(text) == masked


@pytest.mark.parametrize("text", [one.strip() for one in NOT_FOUND.replace("\n", "|").split("|")])
def test_what_only_looks_like_it(text):
    assert RULE.mask(f"I read: {text}") == f"I read: {text}"


def test_masking_twice_is_masking_once_and_spans_do_not_overlap():
    rng = random.Random(7)
    parts = [text for text, _ in FOUND] + ["[EMAIL]", "@", " at ", "-", "0", " dot com", "\n", "x"]
    for _ in range(300):
        text = rng.choice(["", " ", "-"]).join(rng.choices(parts, k=rng.randrange(1, 5)))
        once = RULE.mask(text)
        assert RULE.mask(once) == once
        assert RULE.find(once) == []
        ends = [0, *(end for _, _, end in RULE.find(text))]
        assert all(start >= end for (_, start, _), end in zip(RULE.find(text), ends, strict=False))


@pytest.mark.parametrize("unit", ["a", "a.", "1 ", "a at b dot ", "api_key=", "(415) ", "a@", "::"])
@pytest.mark.timeout(5)
def test_a_long_text_takes_time_in_proportion(unit):
    # 0.1 s each; a pattern that goes back and forth over it would take minutes.
    RULE.find(unit * (30_000 // len(unit)))


def test_text_without_hits_is_the_same_object_of_a_row():
    row = demonstration("What is 17 * 23?", "391, as 17 * 20 = 340.")
    assert MASKING.check(row) == (row, (), "")


def test_every_place_of_a_row_is_masked():
    row = demonstration("I am jo@mail.de", "Hello jo@mail.de", user="jo@mail.de", id="jo@mail.de/1")
    row = row._replace(
        messages=[
            {"role": "system", "content": "You help jo@mail.de"},
            {"role": "user", "content": "I am jo@mail.de", "name": "jo@mail.de"},
        ],
        labeler="+1 202-555-0143",
        source="export of jo@mail.de",
        meta={"notes": [{"by": "jo@mail.de"}], "card": 4111111111111111, "count": 3},
    )
    verdict = MASKING.check(row)
    assert "jo@" not in verdict.row.dumps()
    assert "555" not in verdict.row.dumps()
    assert "4111" not in verdict.row.dumps()
    assert verdict.row.meta == {"notes": [{"by": "[EMAIL]"}], "card": "[CARD]", "count": 3}
    assert verdict.reasons == ("email", "card", "name of a person")
    assert "jo@" not in verdict.example
    # Who is one person stays one person, and ids stay apart.
    again = MASKING.check(row._replace(id="jo@mail.de/2")).row
    assert again.user == verdict.row.user
    assert again.id != verdict.row.id


def test_drop_is_for_texts_of_the_training_split_and_metadata_is_masked():
    told = demonstration("I am jo@mail.de", "Hello", split="train")
    aside = demonstration("Hi", "Hello", split="train")._replace(meta={"by": "jo@mail.de"})
    assert RULE.check(told).row is None
    assert RULE.check(aside).row.meta == {"by": "[EMAIL]"}
    held = told._replace(split="test")
    assert RULE.check(held) == (held, ("email, kept in test",), "I am [EMAIL]")
    assert PersonalData(splits="all").check(held).row is None


def test_report_changes_nothing_and_shows_nothing():
    row = comparison("Who is it?", ["jo@mail.de", "4111 1111 1111 1111 is his card"], [1, 2])
    verdict = PersonalData(action="report").check(row)
    assert verdict.row == row
    assert verdict.reasons == ("email", "card")
    assert "jo@" not in verdict.example


def test_kinds_that_are_not_asked_for_stay():
    rule = PersonalData(action="mask", kinds=("card",))
    text = "jo@mail.de 4111 1111 1111 1111"
    assert rule.mask(text) == "jo@mail.de [CARD]"


def test_a_region_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"personal.regions must be countries, such as US, got XX"):
        PersonalData(regions=("XX",)).check_options("prompts")


@pytest.fixture
def presidio(monkeypatch):
    stand_ins.presidio(monkeypatch)
    yield
    _analyzer.cache_clear()


def test_names_and_addresses_by_presidio(presidio):
    rule = PersonalData(kinds=(*PATTERNS, "name", "address"))
    rule.check_options("prompts")
    text = "Jane Miller, 12 Long Street, jane@mail.de"
    assert rule.mask(text) == "[NAME], [ADDRESS], [EMAIL]"


def test_a_model_of_language_that_is_not_there_is_not_downloaded(presidio):
    rule = PersonalData(kinds=("name",), language_model="en_core_web_sm")
    with pytest.raises(UserError, match="must be installed, got en_core_web_sm"):
        rule.check_options("prompts")


def test_names_without_presidio_say_what_to_install(monkeypatch):
    _analyzer.cache_clear()
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(UserError, match=r"pip install 'instructgpt\[names\]'"):
        PersonalData(kinds=("name",)).check_options("prompts")
