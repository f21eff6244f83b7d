"""The one spelling of an e-mail address, and what is none."""

import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from birthday.core.address import MAX_CHARACTERS, PLAIN, parse_address
from birthday.core.text import find_invisible

INVISIBLE = (
    *("00AD", "034F", "061C", "115F", "1160", "17B4", "180B", "180E", "200B", "200C", "200D", "200E", "202E", "2060"),
    *("2066", "2800", "3164", "FE0F", "FEFF", "FFA0", "FFF9", "E0001", "E0041"),
)


@pytest.mark.parametrize(
    ("given_text", "stored"),
    [
        ("Ada.Lovelace+news@Example.com", "Ada.Lovelace+news@Example.com"),
        ("o'brien@a.b-c.co.uk", "o'brien@a.b-c.co.uk"),
        ("ada@intranet.local", "ada@intranet.local"),
        ("ada@münchen.de", "ada@xn--mnchen-3ya.de"),
        ("ada@MÜNCHEN.DE", "ada@xn--mnchen-3ya.de"),
        ("ada@XN--MNCHEN-3YA.DE", "ada@xn--mnchen-3ya.de"),
        ("ada@faß.de", "ada@xn--fa-hia.de"),
        ("почта@пример.рф", "почта@xn--e1afmkfd.xn--p1ai"),
        ("ada@x\N{IDEOGRAPHIC FULL STOP}de", "ada@x.de"),
        ("jose\N{COMBINING ACUTE ACCENT}@example.com", "josé@example.com"),
        ("🎂@example.com", "🎂@example.com"),
        ('"ada"@example.com', "ada@example.com"),
        ('"a\\d\\a"@example.com', "ada@example.com"),
        ('"a;b"@example.com', '"a;b"@example.com'),
        ('"a@b"@example.com', '"a@b"@example.com'),
    ],
)
def test_an_address_has_one_spelling(given_text: str, stored: str) -> None:
    """The part before the @ is NFC without needless quotation marks, the domain is what DNS knows."""
    assert parse_address(given_text) == stored


@pytest.mark.parametrize("code", INVISIBLE)
@pytest.mark.parametrize("form", ["ad{}a@example.com", "{}ada@example.com", "ada@exa{}mple.com", "ada@example.com{}"])
def test_what_cannot_be_seen_is_refused_and_named(form: str, code: str) -> None:
    """Whoever copied such a character along sees where the trouble is."""
    with pytest.raises(ValueError, match=rf"^U\+{code} in it cannot be seen$"):
        parse_address(form.format(chr(int(code, 16))))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ada", "no @"),
        ("<ada@example.com>", "'<' may not stand before the @"),
        ("Ada <ada@example.com>", "' ' may not stand"),
        ("mailto:ada@example.com", "':' may not stand"),
        ("ada;grace@example.com", "';' may not stand"),
        ("ada@example.com,grace@example.com", "may not stand"),
        ("a(comment)@example.com", "may not stand"),
        ("a\\b@example.com", "may not stand"),
        ('a"b@example.com', "may not stand"),
        ("a\N{NO-BREAK SPACE}b@example.com", r"U\+00A0 may not stand"),
        ("a\N{IDEOGRAPHIC SPACE}b@example.com", r"U\+3000 may not stand"),
        ("\ue000@example.com", r"U\+E000 may not stand"),
        ("a..b@example.com", "a dot too many"),
        (".a@example.com", "a dot too many"),
        ("a.@example.com", "a dot too many"),
        ("@example.com", "or nothing"),
        ("\N{COMBINING ACUTE ACCENT}a@example.com", "belongs to no letter"),
        ("a" * 65 + "@example.com", "more than 64 bytes"),
        ("ü" * 33 + "@example.com", "more than 64 bytes"),
        ("ada@example", "no dot"),
        ("ada@example.com.", "name such as com"),
        ("ada@127.0.0.1", "name such as com"),
        ("ada@[127.0.0.1]", "cannot be in DNS"),
        ("ada@example..com", "cannot be in DNS: Empty Label"),
        ("ada@-example.com", "cannot be in DNS"),
        ("ada@example-.com", "cannot be in DNS"),
        ("ada@exam_ple.com", "cannot be in DNS"),
        ("ada@ab--cd.com", "cannot be in DNS"),
        ("ada@xn--a.com", "cannot be in DNS"),
        (f"ada@{'x' * 64}.com", "cannot be in DNS: Label too long"),
        (f"ada@{'ü' * 60}.com", "cannot be in DNS: Label too long"),
        ("ada@exam ple.com", "cannot be in DNS"),
        ("ada@example.com>", "cannot be in DNS"),
        ("ada@☃.com", "cannot be in DNS"),
        (f"{'a' * 60}@{'ä.' * 20}{'b.' * 20}com", "more than 254 characters"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text: str, reason: str) -> None:
    """Display names, lists, links and domains that no mail can reach are told from addresses."""
    with pytest.raises(ValueError, match=reason):
        parse_address(text)


_LOCAL = st.text(st.sampled_from('aZ9.é\u0301"\\@ ;\u200d日'), max_size=8)
_DOMAIN = st.text(st.sampled_from("aZ9.-ü\u0308ßXN_。"), max_size=12)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # Other tests share the machine.
@given(st.from_regex(PLAIN, fullmatch=True) | st.builds("{}@{}.de".format, _LOCAL, _DOMAIN))
def test_the_stored_spelling_is_stable(text: str) -> None:
    """What is stored is accepted again and stays as it is, so an export can be imported; nothing of it is invisible."""
    try:
        stored = parse_address(text)
    except ValueError:
        return
    assert parse_address(stored) == stored
    assert find_invisible(stored) is None
    assert unicodedata.is_normalized("NFC", stored)
    assert stored.rpartition("@")[2].isascii()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # Other tests share the machine.
@given(st.from_regex(PLAIN, fullmatch=True).filter(lambda text: len(text) <= MAX_CHARACTERS))
def test_what_the_pattern_takes_is_an_address(text: str) -> None:
    """The document's pattern promises no more than is accepted, also in another spelling of the domain."""
    local, _, domain = text.rpartition("@")
    assert parse_address(text) == text
    respelt = domain.replace(".", "\N{IDEOGRAPHIC FULL STOP}")
    assert parse_address(f"{local}@{respelt}") == f"{local}@{domain.lower()}"
