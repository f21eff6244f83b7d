"""What a template says, and what it refuses to say."""

import time
from datetime import date

import orjson
import pytest

from birthday.content import RenderError, Template
from birthday.core.message import greeting
from birthday.core.template import BUILT_IN_SOURCE, PARTS, Source, Values, parse_locale, parse_type, template_name
from birthday.errors import InvalidInputError

ATTRIBUTES = {"team": "R&D", "vip": True, "tags": ["a", "b"], "level": 7, "since": "2019-03-04", "of": {"x": 1}}
ADA = Values(
    "Ada", "Lovelace", "ada@example.com", "pt-BR", "birthday", date(2027, 3, 1), 30, ATTRIBUTES, "0190-id", "https://u"
)
CHER = ADA._replace(first_name="Cher", last_name="", years=None, locale=None, attributes={}, unsubscribe_url=None)


def say(message: str, values: Values = ADA, locale: str = "default") -> str:
    """Return what a message says."""
    return Template(Source(message), locale).render(values).message


@pytest.mark.parametrize("values", [ADA, CHER])
def test_what_is_built_in_is_the_sentence_of_the_contract(values: Values) -> None:
    """The source that is shown says to the letter what the worker sends without rendering."""
    assert Template(BUILT_IN_SOURCE, "default").render(values).message == greeting(values.first_name, values.last_name)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ first_name }} {{ last_name }}", "Cher"),
        ("{{ last_name }} {{ first_name }}!", "Cher!"),
        ("Hey, {{ first_name }} {{ last_name }}, hey", "Hey, Cher, hey"),
        ("Hey {{ last_name }} {{ last_name }} you", "Hey you"),
        ("A\n{{ last_name }} B  C", "A\nB  C"),
        ("({{ last_name }})", "()"),
        ("{{ full_name }} \n\n", "Cher"),
        ("{{ first_name if last_name }} x", "x"),
    ],
)
def test_an_empty_value_leaves_no_blank(source: str, expected: str) -> None:
    """Somebody with one name gets no double and no trailing blank; blanks of the text stay."""
    assert say(source, CHER) == expected


@pytest.mark.parametrize(
    ("source", "locale", "expected"),
    [
        ("{{ years | ordinal }}", "default", "30th"),
        ("{{ 1 | ordinal }} {{ 2 | ordinal }} {{ 3 | ordinal }} {{ 11 | ordinal }}", "en-GB", "1st 2nd 3rd 11th"),
        ("{{ 1 | ordinal }} {{ 2 | ordinal }}", "fr", "1er 2e"),
        ("{{ years | ordinal }}", "de-AT", "30."),
        ("{{ years | ordinal }}", "pt-BR", "30º"),
        ("{{ date | date }}", "default", "March 1, 2027"),
        ("{{ date | date }}", "pt-BR", "1 de março de 2027"),
        ("{{ date | date('MMMMd') }}", "de", "1. März"),
        ("{{ date | date('EEEE') }}", "el", "Δευτέρα"),
        ("{{ attributes.since | date('short') }}", "en-GB", "04/03/2019"),
        ("{{ 1234567.5 | number }}", "de", "1.234.567,5"),
        ("{{ 1234567.5 | number }}", "fr-CA", "1\xa0234\xa0567,5"),
        ("{{ date.year }}-{{ date.month }}", "x" * 3, "2027-3"),
    ],
)
def test_filters_speak_the_language_of_the_template(source: str, locale: str, expected: str) -> None:
    """Dates, numbers and ordinals are those of the template's locale or its parent; default is English."""
    assert say(source, ADA, locale) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ type }} {{ email }} {{ message_id }} {{ locale }}", "birthday ada@example.com 0190-id pt-BR"),
        ("{{ attributes.team }} {{ attributes['level'] + 1 }} {{ attributes.of.x }}", "R&D 8 1"),
        ("{{ attributes.nickname | default(first_name) }}", "Ada"),
        ("{{ attributes.no.such | default('-') }}", "-"),
        ("{% if attributes.vip is defined and attributes.vip %}VIP{% endif %}", "VIP"),
        ("{% for tag in attributes.tags %}{{ tag }}{% if not loop.last %}, {% endif %}{% endfor %}", "a, b"),
        ("{% for name, value in attributes.of | items %}{{ name ~ '=' ~ value }}{% endfor %}", "x=1"),
        ("{{ attributes.tags | join('-') }}", "a-b"),
        ("{% if years % 10 == 0 %}round{% endif %}", "round"),
        ("{% set name = first_name | upper %}{{ name }}", "ADA"),
        ("A\n{% if true %}\nB\n{% endif %}\nC\n", "A\nB\nC"),
    ],
)
def test_a_template_uses_what_is_known_of_the_user(source: str, expected: str) -> None:
    """Variables, attributes, defaults, conditions and loops."""
    assert say(source) == expected


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("Hi {{ attributes.nickname }},", "there is no attribute 'nickname'"),
        ("{% if attributes.nickname %}x{% endif %}", "there is no attribute 'nickname'"),
        ("You are {{ years }}", "a value is not known (None)"),
        ("{{ 'You are ' ~ years }}", "a value is not known (None)"),
        ("{{ attributes }}", "of the type dict cannot be printed"),
        ("{{ first_name == 'Cher' }}", "of the type bool cannot be printed"),
        ("{{ years + 1 }}", "take numbers, not a value of the type NoneType"),
        ("{{ 'x' | int }}", "takes a whole number"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ last_name }}", "it says nothing"),
        (r"Hi {{ '\ud83d' }}", "it has a half of a surrogate pair"),
        ("\n\n{{ first_name.upper }}", "line 3: a value of the type str has no 'upper'"),
    ],
)
def test_what_is_missing_is_an_error_and_not_a_gap(source: str, reason: str) -> None:
    """Nothing is printed in place of a value that is not there; the error names the line, and quotes no value."""
    with pytest.raises(RenderError) as caught:
        say(source, CHER)
    assert reason in str(caught.value)
    assert str(caught.value).startswith("message")
    assert "Cher" not in str(caught.value).replace("'Cher'", "")


def test_an_unknown_language_says_no_ordinal() -> None:
    """A language whose ordinals are not known is an error, not an English suffix."""
    for locale, reason in (("ru", "ordinal does not know the language ru"), ("qqx", "language qqx are not known")):
        with pytest.raises(RenderError, match=reason):
            say("{{ years | ordinal }}", ADA, locale)


def test_only_html_is_escaped_and_a_subject_is_one_line() -> None:
    """Text stays as it is, markup in a name is shown, and nothing in a subject begins another header."""
    values = ADA._replace(first_name="<b>", attributes={"team": "x\r\nBcc: y@example.com"})
    source = Source("{{ first_name }}", "To {{ first_name }}\n{{ attributes.team }}", "<p>{{ first_name }}</p>")
    said = Template(source, "default").render(values)
    assert (said.message, said.html) == ("<b>", "<p>&lt;b&gt;</p>")
    assert said.subject == "To <b> x Bcc: y@example.com"


def test_a_payload_is_json_whatever_the_values_contain() -> None:
    """Values stand between quotes or come from tojson; what the other parts say can be used."""
    payload = """{"to": "{{ email }}", "text": "{{ message }}", "subject": "{{ subject }}",
        "tags": {{ attributes.tags | tojson }}, "vip": {{ attributes.vip }}, "n": {{ years }}}"""
    source = Source('Say "hi",\n{{ first_name }}', "S", payload=payload)
    said = Template(source, "default").render(ADA._replace(first_name='A"\\\u2028B'))
    assert said.payload is not None
    assert orjson.loads(said.payload) == {
        "to": "ada@example.com",
        "text": 'Say "hi",\nA"\\\u2028B',
        "subject": "S",
        "tags": ["a", "b"],
        "vip": True,
        "n": 30,
    }
    with pytest.raises(RenderError, match="payload: what was rendered is not JSON"):
        Template(Source("x", payload='{"a": {{ first_name }}}'), "default").render(ADA)


def test_a_test_message_is_marked() -> None:
    """Message, subject and payload of a test show that it is one."""
    said = Template(Source("Hi", payload='["{{ message }}"]'), "default").render(ADA, "[Test] ")
    assert (said.message, said.subject, said.payload) == ("[Test] Hi", "[Test] birthday", b'["[Test] Hi"]')


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ frist_name }}", "line 1: frist_name is no variable; accepted are attributes, date,"),
        ("\n{{ first_name", "line 2: unexpected end of template"),
        ("{{ first_name | shout }}", "there is no filter shout; accepted are capitalize"),
        ("{{ years is big }}", "there is no test big"),
        ("{{ first_name.__class__.__mro__ }}", "no name may begin with an underscore"),
        ("{{ _run }}", "_run is no variable"),
        ("{{ first_name | _each(1) }}", "there is no filter _each"),
        ("{{ first_name | attr('__class__') }}", "there is no filter attr"),
        ("{{ '%9999999d' | format(1) }}", "there is no filter format"),
        ("{{ first_name | center(1000000000) }}", "there is no filter center"),
        ("{{ first_name.format(1) }}", "a call is not accepted"),
        ("{% for i in range(10 ** 9) %}x{% endfor %}", "is not accepted"),
        ("{{ lipsum() }}", "is not accepted"),
        ("{{ cycler('a') }}", "is not accepted"),
        ("{% set n = namespace() %}", "is not accepted"),
        ("{{ environ }}", "environ is no variable"),
        ("{{ self }}", "self is no variable"),
        ("{{ 2 ** 99999 }}", "'**' is not accepted"),
        ("{{ first_name[0:2] }}", "'slice' is not accepted"),
        ("{{ first_name | join(*attributes.tags) }}", "'*' before an argument is not accepted"),
        ("{% include 'x' %}", "'include' is not accepted"),
        ("{% import 'x' as x %}", "'import' is not accepted"),
        ("{% extends 'x' %}", "'extends' is not accepted"),
        ("{% block x %}{% endblock %}", "'block' is not accepted"),
        ("{% macro x() %}{% endmacro %}", "'macro' is not accepted"),
        ("{% macro x() %}" * 100 + "{% endmacro %}" * 100, "is not accepted"),
        ("{% for i in attributes recursive %}{% endfor %}", "a recursive loop is not accepted"),
        ("{% for i in attributes %}" * 4 + "{% endfor %}" * 4, "at most 3 are accepted"),
        ("{% if 1 %}" * 100 + "{% endif %}" * 100, "nested too deep"),
        ("{{ " + "(" * 3000, "nested too deep"),
        ("{{ first_name }}" * 600, "too many expressions"),
        ("x" * 16_385, "is too long: at most 16384 characters"),
    ],
)
def test_what_could_reach_out_or_last_is_refused(source: str, reason: str) -> None:
    """A template has no calls, no other templates and no internals; the error names the line."""
    with pytest.raises(InvalidInputError) as caught:
        Template(Source(source), "default")
    assert reason in str(caught.value)
    assert [field.pointer for field in caught.value.fields] == ["/message"]


HOSTILE = {
    "n": list(range(900)),
    "big": "ab " * 1200,
    "list": ["x" * 40] * 60,
    "of": {f"k{number}": number for number in range(200)},
}


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in attributes.n %}" * 3 + "x" + "{% endfor %}" * 3,
        "{% for a in attributes.list %}{% for b in attributes.list %}x{% endfor %}{% endfor %}",
        "{% for a in attributes.n %}{{ attributes.big }}{% endfor %}",
        "{% for a in attributes.n %}{{ a | number }}{% endfor %}",
        "{% set x = 'ab' %}" + "{% set x = x ~ x %}" * 60 + "{{ x }}",
        "{{ 'a' * 999 }}",
        "{{ [1, 2] * 99 }}",
        "{{ 999999999999 * 999999999999 * 2 }}",
        "{{ '9' * 99 | int }}",
        "{{ attributes.n | join(attributes.big) }}",
        "{{ attributes.big | title }}" * 80,
        "{{ attributes.big | urlencode }}" * 80,
        "{{ attributes.n | sort | join }}" * 60,
        "{% if attributes.n == attributes.n %}x{% endif %}",
        "{{ first_name['__class__'] }}",
        "{{ attributes.n | sort(attribute='__class__') }}",
        "{{ date | date('" + "y" * 60 + "') }}",
    ],
)
def test_a_template_that_would_hold_everything_up_fails_alone(source: str) -> None:
    """Work, numbers and output are bounded: rendering ends with an error, in little more than the time it may take."""
    template = Template(Source(source), "default")
    values = ADA._replace(attributes=HOSTILE)
    took = []
    for _ in range(3):
        before = time.process_time()
        with pytest.raises(RenderError):
            template.render(values)
        took.append(time.process_time() - before)
    assert min(took) < 0.005


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in attributes.list %}{{ loop.index * 2 + 1 }}{{ loop.index }}{% endfor %}",
        "{{ date | date('EEEE d MMMM y') }}" * 80,
        "{{ years | number }}" * 80,
        "{% if 'zz' not in attributes.big %}x{% endif %}" * 10,
        "{{ first_name | upper | lower | title | trim }}" * 80,
    ],
)
def test_the_longest_work_that_is_accepted_is_short(source: str) -> None:
    """What just keeps within the bounds holds the event loop for less than 5 ms."""
    template = Template(Source(source), "de")
    values = ADA._replace(attributes=HOSTILE)
    template.render(values)
    took = []
    for _ in range(3):
        before = time.process_time()
        template.render(values)
        took.append(time.process_time() - before)
    assert min(took) < 0.005


def test_every_part_that_is_wrong_is_named() -> None:
    """An author sees all mistakes at once."""
    with pytest.raises(InvalidInputError) as caught:
        Template(Source("{{ a }}", "{{ b }}", "{{ c }}", "{{ d }}"), "default")
    assert [field.pointer for field in caught.value.fields] == [f"/{part}" for part in PARTS]


def test_names_of_templates_are_spelled_in_one_way() -> None:
    """Locales have the case that BCP 47 recommends; other names are refused with what is accepted."""
    assert [parse_locale(text) for text in ("PT-br", "zh-hant-tw", "default", "es-419")] == [
        "pt-BR",
        "zh-Hant-TW",
        "default",
        "es-419",
    ]
    assert template_name(parse_type("name-day"), "pt-BR") == "name-day.pt-BR"
    for parse, text in ((parse_type, "Name Day"), (parse_locale, "portuguese"), (parse_locale, "../x")):
        with pytest.raises(InvalidInputError, match="accepted"):
            parse(text)
