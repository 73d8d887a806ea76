"""An answer in another language than asked in is told from one that may well be."""

from __future__ import annotations

import pytest

from broker.core.answers.languages import NAMED_WITHIN, Asked, language_of, names_a_language

TEXTS = {
    "en": "The landlord may raise the rent, but only if this is in the contract that you have.",
    "de": "Der Vermieter darf die Miete nicht erhöhen, wenn das im Vertrag so nicht steht und ist.",
    "fr": "Le bailleur ne peut pas augmenter le loyer, et cette clause est dans les contrats.",
    "es": "El propietario no puede subir el alquiler, pero los contratos son para las partes.",
    "it": "Il proprietario non può aumentare il canone, che è scritto nel contratto, per gli anni.",
    "pt": "O senhorio não pode aumentar a renda, mas os contratos são para as partes, como é.",
    "nl": "De verhuurder mag de huur niet verhogen, maar het contract is van een ander en dat.",
    "pl": "Właściciel nie może podnieść czynszu, ale to jest w umowie i nie się zmienia przez rok.",
    "ru": "Арендодатель не может повысить арендную плату до конца договора.",
    "zh": "房东在合同结束之前不能提高租金。",
    "ja": "大家は契約が終わるまで家賃を上げることができません。",
    "ko": "집주인은 계약이 끝나기 전에 임대료를 올릴 수 없습니다.",
    "ar": "لا يجوز للمالك رفع الإيجار قبل نهاية العقد.",
    "el": "Ξέρω πως πρέπει.",
}


@pytest.mark.parametrize("language", TEXTS)
def test_languages_are_told_apart(language: str) -> None:
    assert language_of(TEXTS[language]) == language


@pytest.mark.parametrize(
    "text",
    ["", "42", "Yes.", "x = 1\nfor each in y: z(each)", "```python\nthe and of is are was\n```"],
)
def test_what_is_short_or_code_is_of_no_language(text: str) -> None:
    assert language_of(text) is None


def test_an_answer_in_another_language_is_seen() -> None:
    assert Asked(lambda: [TEXTS["de"]]).is_in_another(TEXTS["en"])
    assert Asked(lambda: [TEXTS["zh"]]).is_in_another(TEXTS["en"])
    assert Asked(lambda: [TEXTS["en"]]).is_in_another(TEXTS["ru"])
    assert not Asked(lambda: [TEXTS["de"]]).is_in_another(TEXTS["de"])


def test_who_speaks_of_languages_or_in_two_may_be_answered_in_any() -> None:
    assert not Asked(lambda: [TEXTS["de"] + " Bitte auf Englisch."]).is_in_another(TEXTS["en"])
    assert not Asked(lambda: ["Translate to Russian: " + TEXTS["en"]]).is_in_another(TEXTS["ru"])
    both = Asked(lambda: [TEXTS["en"], TEXTS["de"]])
    assert not both.is_in_another(TEXTS["en"]), "the system's language"
    assert not Asked(lambda: ["Why?"]).is_in_another(TEXTS["de"]), "nobody can tell what that was"
    assert not Asked(list).is_in_another(TEXTS["de"])


def test_what_was_asked_is_read_once_for_all_choices_and_not_before_one_has_a_language() -> None:
    read = 0

    def texts() -> list[str]:
        nonlocal read
        read += 1
        return [TEXTS["de"]]

    asked = Asked(texts)
    assert not asked.is_in_another("42")
    assert read == 0
    for _ in range(8):
        assert asked.is_in_another(TEXTS["en"])
    assert read == 1


@pytest.mark.parametrize(
    "named", ["Translate it.", "Auf ENGLISCH bitte.", "En español, por favor."]
)
def test_of_a_long_text_a_language_is_named_at_its_begin_or_at_its_end(named: str) -> None:
    prose = "The parcel has not come. " * (NAMED_WITHIN // 10)
    assert not names_a_language(prose + prose)
    assert names_a_language(named + prose + prose)
    assert names_a_language(prose + prose + named)
    assert not names_a_language(prose + named + prose), "it is spoken of, and not asked for"
