"""The language filter, on sentences whose language is known."""

import pytest
from hygiene_rows import demonstration, document, prompt

from instructgpt.hygiene.language import LanguageFilter
from instructgpt.types import UserError

SENTENCES = {
    "en": "Could you please tell me how to get from the station to the old harbour?",
    "de": "Können Sie mir bitte sagen, wie ich vom Bahnhof zum alten Hafen komme?",
    "fr": "Pourriez-vous me dire comment aller de la gare au vieux port, s'il vous plaît ?",
    "es": "¿Podría decirme cómo llegar desde la estación hasta el puerto viejo, por favor?",
    "pl": "Czy mógłby mi pan powiedzieć, jak dojść z dworca do starego portu?",
    "ru": "Подскажите, пожалуйста, как пройти от вокзала до старого порта?",
    "zh": "请问您能告诉我怎么从火车站走到老港口吗 从那里出发大概需要多长时间呢",
    "ja": "駅から古い港までどうやって行けばよいか教えていただけますか。",
}
CODE = "zqx1 bfp2 kkw3 zzt4 qpl5 xxv6 jjk7 wwq8 ggh9 ttr0 zqx1 bfp2 kkw3"


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_is_kept_in_its_language_only(language):
    row = prompt(SENTENCES[language])
    assert LanguageFilter(keep=language).check(row).row == row
    others = [one for one in SENTENCES if one != language]
    assert LanguageFilter(keep=others).check(row) == (None, (language,), "")
    assert LanguageFilter(keep=others).check(document(row.prompt)).row is None


def test_what_is_too_short_or_no_language_is_kept():
    rule = LanguageFilter(keep=["en"])
    for text in ["3 + 4 * 17 = ?", "Bonjour!", "🙂🙂🙂", "x = [i ** 2 for i in y]", CODE]:
        assert rule.check(prompt(text)).row is not None


def test_the_prompt_decides_and_not_the_response():
    row = demonstration("Translate into French: how do I get to the harbour?", SENTENCES["fr"])
    assert LanguageFilter(keep="en").check(row).row == row


def test_options():
    assert not LanguageFilter().is_on("prompts")
    with pytest.raises(UserError, match=r"language.keep must be languages that are known .*got xx"):
        LanguageFilter(keep=["xx"]).check_options("prompts")
