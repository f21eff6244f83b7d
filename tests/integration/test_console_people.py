"""Users, messages and today in the console: who sees what, what is asked before a change, and what is told of it."""

import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from html import unescape

import asyncpg
import orjson
import pytest

from birthday.core.ident import uuid7
from birthday.core.message import Status
from birthday.core.template import Source
from birthday.http.console.plain import KINDS, OUTCOMES
from birthday.operations.explain import NO_MESSAGE
from birthday.store.templates import publish
from tests.support.api import Api, api_keys, running_api
from tests.support.clock import ManualClock
from tests.support.console import Browser, Shown, browsing

KEYS = api_keys(rita="read", walter="write", ada="admin")
NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
FORM: Mapping[str, str] = {
    "firstName": "Maria",
    "lastName": "Silva",
    "email": "maria@example.com",
    "dateOfBirth": "1990-03-02",
    "timezone": "America/Sao_Paulo",
    "locale": "pt-BR",
    "externalId": "crm-7",
    "anniversaries": "work-anniversary 2019-03-04",
    "attributes": '{"team": "blue"}',
}
JARGON = re.compile(r"'birthday |SEND_AT|LEAP_DAY|PLAN_HORIZON|CATCH_UP_WINDOW|suppressed|[0-9]T[0-9]")
"""What only those know who run the program."""
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """A console with a key of each scope, at 09:30 UTC on 1 March 2026."""
    async with running_api(pool, api_keys=KEYS, clock=ManualClock(NOW)) as api:
        api.client.headers["Authorization"] = "Bearer key-of-ada"
        yield api


@pytest.fixture
async def ada(api: Api) -> AsyncIterator[Browser]:
    """A browser with the scope admin."""
    async with browsing(api, "key-of-ada") as browser:
        yield browser


@pytest.fixture
async def rita(api: Api) -> AsyncIterator[Browser]:
    """A browser with the scope read."""
    async with browsing(api, "key-of-rita") as browser:
        yield browser


async def add(browser: Browser, **changes: str) -> str:
    """Add a user through the form, and return the id."""
    shown = await browser.confirm("/console/users/new", {**FORM, **changes})
    found = re.fullmatch(r"/console/users/([0-9a-f-]{36})", shown.path)
    assert found, (shown.path, text_of(shown))
    return found[1]


async def message_of(api: Api, user_id: str) -> str:
    """Return the id of the newest message of a user."""
    answer = await api.get(f"/users/{user_id}/messages")
    return str(answer.json["messages"][0]["id"])


async def actions(api: Api, entity_id: str) -> list[tuple[str, str]]:
    """Return actor and action of what was done to somebody, the oldest first."""
    answer = await api.get(f"/changes?entityId={entity_id}")
    return [(one["actor"], one["action"]) for one in reversed(answer.json["changes"])]


def text_of(shown: Shown) -> str:
    """Return what a person reads of a page, as one line."""
    body = shown.text.partition("<main")[2].partition("</main>")[0]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", body)))


async def test_a_user_is_added_after_a_page_that_tells_when_the_greeting_comes(api: Api, ada: Browser) -> None:
    """The user of the form is the one of POST /users, with its message planned; the record has who did it."""
    asked = await ada.post("/console/users/new", FORM)
    told = text_of(asked)
    assert "Add Maria Silva?" in told
    assert "2026-03-02 09:00 in America/Sao_Paulo" in told
    assert (await api.get("/users")).json["users"] == []
    user_id = await add(ada)
    user = (await api.get(f"/users/{user_id}")).json
    assert (user["firstName"], user["dateOfBirth"], user["timezone"]) == ("Maria", "1990-03-02", "America/Sao_Paulo")
    assert (user["locale"], user["externalId"], user["attributes"]) == ("pt-BR", "crm-7", {"team": "blue"})
    assert user["anniversaries"] == {"work-anniversary": "2019-03-04"}
    assert user["nextMessageAt"] == "2026-03-02T12:00:00Z"
    assert ("console:ada", "created") in await actions(api, user_id)
    assert api.metric("users_created_total") == 1
    shown = await ada.get(f"/console/users/{user_id}")
    assert "The user was added." not in text_of(shown)


async def test_a_question_that_is_denied_leads_back_to_what_was_typed(api: Api, ada: Browser) -> None:
    """For a new user and for a change; nothing is stored."""
    user_id = await add(ada)
    changed = {**await edit_form(ada, user_id), "lastName": "Souza"}
    assert "No, back to the form" in text_of(await ada.post(f"/console/users/{user_id}/edit", changed))
    for place in ("new", f"{user_id}/edit"):
        denied = {**FORM, "lastName": "Souza", "confirmed": "yes", "edit": "yes"}
        shown = await ada.post(f"/console/users/{place}", denied)
        assert 'value="Souza"' in shown.text
        assert 'value="America/Sao_Paulo"' in shown.text
    assert [one["lastName"] for one in (await api.get("/users")).json["users"]] == ["Silva"]


async def test_who_is_added_on_the_birthday_is_greeted_at_once(ada: Browser) -> None:
    """Which the question says, because it cannot be taken back."""
    asked = await ada.post("/console/users/new", {**FORM, "dateOfBirth": "1990-03-01", "timezone": "Europe/Berlin"})
    assert "at once, because it is 2026-03-01 in Europe/Berlin" in text_of(asked)


async def test_a_day_without_a_year_is_a_birthday(api: Api, ada: Browser) -> None:
    """As --MM-DD, which is what the API calls it, or without the hyphens."""
    user_id = await add(ada, dateOfBirth="02-29")
    assert (await api.get(f"/users/{user_id}")).json["dateOfBirth"] == "--02-29"


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("firstName", "", "must not be empty"),
        ("email", "maria@", "is not an e-mail address"),
        ("dateOfBirth", "31.12.1990", "is not a date"),
        ("timezone", "", "is required"),
        ("timezone", "Europe/Berlim", "did you mean Europe/Berlin"),
        ("attributes", "{team", "is not JSON"),
        ("anniversaries", "2019-03-04", "lacks a name or a date"),
        ("anniversaries", "work-anniversary yesterday", "is not a date"),
    ],
)
async def test_wrong_input_is_told_beside_its_field_and_kept(ada: Browser, field: str, value: str, told: str) -> None:
    """With the rules of the API. Nothing is stored, and nothing that was typed is lost."""
    shown = await ada.post("/console/users/new", {**FORM, field: value, "confirmed": "yes"})
    error = re.search(rf'id="{field}-wrong">([^<]*)<', shown.text)
    assert error, text_of(shown)
    assert told in unescape(error[1])
    assert 'aria-invalid="true"' in shown.text
    assert 'value="Silva"' in shown.text
    assert value in unescape(shown.text)
    assert "There is nobody yet" in text_of(await ada.get("/console/users"))


@pytest.mark.parametrize("taken", ["email", "externalId"])
async def test_who_has_the_address_or_id_is_linked(ada: Browser, taken: str) -> None:
    """Before anybody is asked to confirm."""
    first = await add(ada)
    shown = await ada.post(
        "/console/users/new", {**FORM, "email": "x@example.com", "externalId": "x", taken: FORM[taken]}
    )
    assert f'id="{taken}-wrong"' in shown.text
    assert f"/console/users/{first}" in shown.text


async def test_reload_and_back_after_a_change_repeat_nothing(api: Api, ada: Browser) -> None:
    """The answer to a change is another page, which a reload reads again, and which tells the result once."""
    answer = await ada.post("/console/users/new", {**FORM, "confirmed": "yes"}, follow=False)
    assert answer.status == 303
    place = answer.headers["Location"]
    assert "The user was added." in text_of(await ada.get(place))
    assert "The user was added." not in text_of(await ada.get(place))
    assert "another user has" in text_of(await ada.post("/console/users/new", {**FORM, "confirmed": "yes"}))
    assert len((await api.get("/users")).json["users"]) == 1


@pytest.mark.parametrize("query", ["maria", "SILVA", "maria si", "maria@EXAMPLE.com", "crm-7"])
async def test_somebody_is_found_by_name_address_and_external_id(ada: Browser, query: str) -> None:
    """In one box, without regard to case."""
    user_id = await add(ada)
    await add(ada, firstName="Olga", lastName="Ivanova", email="olga@example.com", externalId="")
    shown = await ada.get(f"/console/users?q={query}")
    assert re.findall(r'href="/console/users/([0-9a-f-]{36})"', shown.text) == [user_id]
    assert "1 user found" in text_of(shown)


async def test_an_id_leads_to_its_page(api: Api, ada: Browser) -> None:
    """That of a user, or of a message; an unknown one finds nobody."""
    user_id = await add(ada)
    message_id = await message_of(api, user_id)
    assert (await ada.get(f"/console/users?q={user_id}")).path == f"/console/users/{user_id}"
    assert (await ada.get(f"/console/users?q={message_id}")).path == f"/console/messages/{message_id}"
    assert "Nobody is found" in text_of(await ada.get(f"/console/users?q={uuid7(NOW)}"))


async def test_who_was_deleted_is_found_by_address_and_external_id(api: Api, ada: Browser) -> None:
    """Somebody may ask why they got nothing; who has the address now comes first."""
    user_id = await add(ada)
    await api.delete(f"/users/{user_id}")
    for query in (FORM["email"], "crm-7"):
        shown = await ada.get(f"/console/users?q={query}")
        assert shown.path == f"/console/users/{user_id}"
        assert "Deleted" in text_of(shown)
    second = await add(ada)
    assert second in (await ada.get(f"/console/users?q={FORM['email']}")).text


async def test_filters_are_in_the_address_and_pages_follow(api: Api, ada: Browser) -> None:
    """By zone, birthday and opt-out; the next page keeps them, and no user comes twice."""
    for number in range(60):
        await api.create(
            email=f"user{number}@example.com", dateOfBirth="1990-05-05", timezone="UTC", timezoneOffset=None
        )
    await api.create(email="other@example.com", dateOfBirth="1990-06-06", timezone="Asia/Tokyo", timezoneOffset=None)
    first = await ada.get("/console/users?zone=UTC&birthday=05-05&suppressed=no")
    assert "60 users found" in text_of(first)
    following = unescape(re.findall(r'href="([^"]+)" rel="next"', first.text)[0])
    second = await ada.get(following)
    seen = [re.findall(r'href="/console/users/([0-9a-f-]{36})"', one.text) for one in (first, second)]
    assert [len(some) for some in seen] == [50, 10]
    assert len({*seen[0], *seen[1]}) == 60
    assert "zone=UTC" in second.path
    assert "61 users" in text_of(await ada.get("/console/users"))
    assert "Nobody is found" in text_of(await ada.get("/console/users?suppressed=yes"))
    wrong = await ada.get("/console/users?zone=Mars&birthday=40-40")
    assert "is not a time zone" in text_of(wrong)
    assert "month and day such as 02-29" in text_of(wrong)
    assert 'value="Mars"' in wrong.text


async def test_a_read_key_sees_masks_and_no_buttons(api: Api, ada: Browser, rita: Browser) -> None:
    """On each page with a person, and without a record of a full view; a change is refused whatever is sent."""
    user_id = await add(ada)
    message_id = await message_of(api, user_id)
    pages = (f"users/{user_id}", f"messages/{message_id}", "users", "users?q=maria", "today")
    for path in pages:
        shown = await rita.get(f"/console/{path}")
        assert shown.status == 200
        assert not re.search(r"Silva|maria@|1990|crm-7|blue", shown.text.replace('value="maria"', "")), path
        assert "<button>Delete" not in shown.text
        assert 'method="post" class="inline"' not in shown.text
    assert "M… S…" in text_of(await rita.get(f"/console/users/{user_id}"))
    assert "m…@example.com" in text_of(await rita.get("/console/users"))
    assert ("console:rita", "viewed") not in await actions(api, user_id)
    for path in ("users/new", *(f"users/{user_id}/{name}" for name in ("edit", "suppress", "delete", "erase"))):
        assert (await rita.post(f"/console/{path}", {**FORM, "confirmed": "yes"})).status == 403
    for path in (f"messages/{message_id}/said", f"messages/{message_id}/retry"):
        assert (await rita.post(f"/console/{path}", {"confirmed": "yes"})).status == 403
    assert (await rita.get(f"/console/users/{user_id}/data")).status == 403
    assert (await api.get(f"/users/{user_id}")).json["firstName"] == "Maria"


async def test_a_write_key_changes_users_but_does_not_erase(api: Api, ada: Browser) -> None:
    """Erasing, everything that is held, and another try of a message need the scope admin, as in the API."""
    user_id = await add(ada)
    message_id = await message_of(api, user_id)
    async with browsing(api, "key-of-walter") as walter:
        shown = await walter.get(f"/console/users/{user_id}")
        assert "Edit" in text_of(shown)
        assert "Erase" not in text_of(shown)
        for path in (f"users/{user_id}/erase", f"messages/{message_id}/retry"):
            assert (await walter.post(f"/console/{path}", {"confirmed": "yes"})).status == 403
        assert (await walter.get(f"/console/users/{user_id}/data")).status == 403


async def test_each_full_view_is_recorded(api: Api, ada: Browser) -> None:
    """With the id and who it was; a list is one record."""
    user_id = await add(ada)
    await ada.get(f"/console/users/{user_id}")
    await ada.get(f"/console/users/{user_id}/edit")
    await ada.get(f"/console/users/{user_id}/data")
    await ada.get(f"/console/messages/{await message_of(api, user_id)}")
    viewed = [one for one in await actions(api, user_id) if one == ("console:ada", "viewed")]
    # The page that follows the addition is the first one.
    assert len(viewed) == 5


async def test_a_question_that_names_a_person_is_recorded_as_a_view(api: Api, ada: Browser) -> None:
    """So is the form that another change has overtaken, because it shows what is stored now."""
    user_id = await add(ada)
    told = {"suppress": "Maria", "unsuppress": "Maria", "delete": "Maria", "erase": "Maria", "edit": "maria@"}
    for name, shows in told.items():
        before = (await actions(api, user_id)).count(("console:ada", "viewed"))
        fields = {"tag": "of before", "confirmed": "yes"} if name == "edit" else {"reason": "asked"}
        asked = await ada.post(f"/console/users/{user_id}/{name}", fields)
        assert shows in asked.text, name
        assert (await actions(api, user_id)).count(("console:ada", "viewed")) == before + 1, name


async def test_script_in_every_field_stays_text(api: Api, ada: Browser) -> None:
    """On every page that shows it, in forms, in errors, and in the address."""
    evil = {
        "firstName": SCRIPT,
        "lastName": f'"{SCRIPT}',
        "externalId": SCRIPT,
        "anniversaries": "",
        "attributes": orjson.dumps({SCRIPT: SCRIPT}).decode(),
        "dateOfBirth": "1990-03-01",
        "timezone": "UTC",
    }
    user_id = await add(ada, **evil)
    message_id = await message_of(api, user_id)
    await api.context.pool.execute(
        "UPDATE message_logs SET status = 'failed', error_type = 'timeout', error_detail = $1", SCRIPT
    )
    asked = await ada.post(f"/console/users/{user_id}/edit", {**FORM, **evil, "tag": "x", "locale": SCRIPT})
    shown = [asked, await ada.post(f"/console/users/{user_id}/suppress", {"reason": SCRIPT})]
    shown.append(await ada.confirm(f"/console/users/{user_id}/suppress", {"reason": SCRIPT}))
    shown.append(await ada.post(f"/console/messages/{message_id}/said", {"confirmed": "yes"}))
    pages = (
        "users",
        f"users/{user_id}",
        f"users/{user_id}/edit",
        f"messages/{message_id}",
        "today",
        f"users?q={SCRIPT}&zone={SCRIPT}&birthday={SCRIPT}&suppressed={SCRIPT}",
        f"today?q={SCRIPT}&zone={SCRIPT}&state={SCRIPT}",
        f"users/{user_id}?year={SCRIPT}&type={SCRIPT}",
    )
    shown += [await ada.get(f"/console/{path}") for path in pages]
    for one in shown:
        assert one.status == 200, (one.path, one.text)
        assert "&lt;script&gt;" in one.text or "type=" in one.path, one.path
        assert "<script>" not in one.text, one.path


@pytest.mark.parametrize("path", ["users", "messages"])
@pytest.mark.parametrize("given", ["01234567-89ab-7def-8123-456789abcdef", "nonsense"])
async def test_who_is_unknown_has_a_page_that_says_so(ada: Browser, path: str, given: str) -> None:
    """It is a page, not a problem document."""
    shown = await ada.get(f"/console/{path}/{given}")
    assert shown.status == 404
    assert "text/html" in shown.headers["Content-Type"]
    assert "Not found" in text_of(shown)


async def edit_form(browser: Browser, user_id: str) -> dict[str, str]:
    """Open the form of a user, and return its fields."""
    shown = await browser.get(f"/console/users/{user_id}/edit")
    fields = dict(re.findall(r'<input[^>]* name="(\w+)"[^>]*? value="([^"]*)"', shown.text))
    texts = dict(re.findall(r'<textarea[^>]* name="(\w+)"[^>]*>([^<]*)</textarea>', shown.text))
    return {name: unescape(value) for name, value in {**fields, **texts}.items()}


async def test_a_change_tells_what_becomes_of_the_message(api: Api, ada: Browser) -> None:
    """A moved birthday cancels the message that was planned, which the page says before it is done."""
    user_id = await add(ada)
    form = await edit_form(ada, user_id)
    form |= {"dateOfBirth": "1990-05-02", "attributes": ""}
    told = text_of(await ada.post(f"/console/users/{user_id}/edit", form))
    assert "Change Maria Silva?" in told
    assert "1990-03-02 → 1990-05-02" in told
    assert "Cancelled: birthday on 2026-03-02" in told
    assert "2026-03-02 09:00 in America/Sao_Paulo → 2026-05-02 09:00 in America/Sao_Paulo" in told
    assert (await api.get(f"/users/{user_id}")).json["dateOfBirth"] == "1990-03-02"
    assert "The user was changed." in text_of(await ada.confirm(f"/console/users/{user_id}/edit", form))
    user = (await api.get(f"/users/{user_id}")).json
    assert (user["dateOfBirth"], user["attributes"], user["externalId"]) == ("1990-05-02", {}, "crm-7")
    statuses = [one["status"] for one in (await api.get(f"/users/{user_id}/messages")).json["messages"]]
    assert statuses == ["cancelled"]
    assert ("console:ada", "changed") in await actions(api, user_id)


async def test_a_form_that_changes_nothing_leaves_no_record(api: Api, ada: Browser) -> None:
    """And says so."""
    user_id = await add(ada)
    shown = await ada.post(f"/console/users/{user_id}/edit", await edit_form(ada, user_id))
    assert "Nothing was changed" in text_of(shown)
    assert ("console:ada", "changed") not in await actions(api, user_id)


async def test_the_second_of_two_operators_is_told_what_the_first_has_changed(api: Api, ada: Browser) -> None:
    """Also if the first one was faster than the second one's confirmation. Then a second try counts."""
    user_id = await add(ada)
    form = await edit_form(ada, user_id) | {"lastName": "Souza"}
    assert "Silva → Souza" in text_of(await ada.post(f"/console/users/{user_id}/edit", form))
    assert (await api.patch(f"/users/{user_id}", {"firstName": "Mariana"})).status == 200
    told = await ada.post(f"/console/users/{user_id}/edit", {**form, "confirmed": "yes"})
    assert "Somebody has changed this user since" in text_of(told)
    assert "First name Mariana" in text_of(told)
    assert 'value="Souza"' in told.text
    assert (await api.get(f"/users/{user_id}")).json["lastName"] == "Silva"
    tag = re.findall(r'name="tag" value="(\w+)"', told.text)[0]
    again = {**form, "firstName": "Mariana", "tag": tag}
    assert "The user was changed." in text_of(await ada.confirm(f"/console/users/{user_id}/edit", again))
    user = (await api.get(f"/users/{user_id}")).json
    assert (user["firstName"], user["lastName"]) == ("Mariana", "Souza")


async def test_an_opt_out_needs_a_reason_and_can_be_taken_back(api: Api, ada: Browser) -> None:
    """The page asks and tells what is cancelled; the reason is shown from then on."""
    user_id = await add(ada)
    place = f"/console/users/{user_id}"
    assert "one line of text is accepted" in text_of(await ada.post(f"{place}/suppress", {"reason": " "}))
    told = text_of(await ada.post(f"{place}/suppress", {"reason": "asked by phone"}))
    assert "birthday on 2026-03-02" in told
    assert (await api.get(f"/users/{user_id}")).json["suppressed"] is False
    shown = text_of(await ada.confirm(f"{place}/suppress", {"reason": "asked by phone"}))
    assert "Nothing more is sent to this user." in shown
    assert "Reason: asked by phone" in shown
    assert "Not greeted: opted out" in shown
    assert api.metric("suppressions_total", source="console") == 1
    assert "Greetings are sent to this user again." in text_of(await ada.confirm(f"{place}/unsuppress"))
    user = (await api.get(f"/users/{user_id}")).json
    assert (user["suppressed"], user["nextMessageAt"]) == (False, "2026-03-02T12:00:00Z")


async def test_a_user_is_deleted_and_erased_after_a_question(api: Api, ada: Browser) -> None:
    """What is deleted is still shown to admins; what is erased is gone, but for its messages."""
    user_id = await add(ada)
    place = f"/console/users/{user_id}"
    assert "Delete Maria Silva?" in text_of(await ada.post(f"{place}/delete"))
    assert (await api.get(f"/users/{user_id}")).status == 200
    shown = text_of(await ada.confirm(f"{place}/delete"))
    assert "Deleted" in shown
    assert "Maria Silva" in shown
    assert (await api.get(f"/users/{user_id}")).status == 404
    assert "cannot be undone" in text_of(await ada.post(f"{place}/erase"))
    assert "The person was erased." in text_of(await ada.confirm(f"{place}/erase"))
    gone = text_of(await ada.get(place))
    assert "This person was erased" in gone
    assert "Maria" not in gone
    assert (await ada.post(f"{place}/delete", {"confirmed": "yes"})).status == 404


async def test_everything_that_is_held_is_a_file_as_the_api_answers_it(api: Api, ada: Browser) -> None:
    """For the person who asks what is stored."""
    user_id = await add(ada)
    shown = await ada.get(f"/console/users/{user_id}/data")
    assert shown.headers["Content-Disposition"] == f'attachment; filename="person-{user_id}.json"'
    held = (await api.get(f"/users/{user_id}/data")).json
    given = orjson.loads(shown.text)
    assert (given["user"], given["messages"]) == (held["user"], held["messages"])


@pytest.mark.parametrize(
    ("status", "detail", "told"),
    [
        ("failed", "the service answered 500", "Not greeted: sending failed"),
        ("expired", None, "Not greeted: too late"),
        ("cancelled", "suppressed", "Not greeted: cancelled"),
        ("delivered", None, "Greeted"),
    ],
)
async def test_why_not_is_told_in_plain_words(
    api: Api, ada: Browser, status: str, detail: str | None, told: str
) -> None:
    """Without the names of settings and commands in what has to be done."""
    user_id = await add(ada)
    await api.context.pool.execute(
        "UPDATE message_logs SET status = $1, error_detail = $2, delivered_at = $3", status, detail, NOW
    )
    shown = text_of(await ada.get(f"/console/users/{user_id}?year=2026&type=birthday"))
    assert f"birthday 2026: {told}" in shown
    assert not JARGON.search(shown)
    assert "is not a year" in text_of(await ada.get(f"/console/users/{user_id}?year=soon"))


async def test_a_leap_day_is_told_in_plain_words(ada: Browser) -> None:
    """Also before its message is planned."""
    user_id = await add(ada, dateOfBirth="1992-02-29", timezone="Europe/Berlin")
    shown = text_of(await ada.get(f"/console/users/{user_id}?year=2027"))
    assert "birthday 2027: Not yet" in shown
    assert "2027 has no 29 February; it is celebrated on 2027-02-28" in shown
    assert "2027-02-28 09:00 in Europe/Berlin is 2027-02-28 08:00 UTC" in shown
    assert not JARGON.search(shown)


def test_every_outcome_and_step_has_plain_words() -> None:
    """A new one must get some."""
    assert set(OUTCOMES) == {*Status, *NO_MESSAGE}
    assert set(KINDS) == set(Status)


async def test_a_message_has_its_way_and_is_sent_again(api: Api, ada: Browser) -> None:
    """With the times of the user, the error in words, and the retry of the API after a question."""
    user_id = await add(ada, dateOfBirth="1990-03-01", timezone="Europe/Berlin")
    message_id = await message_of(api, user_id)
    await api.context.pool.execute(
        """
        UPDATE message_logs SET status = 'failed', error_type = 'timeout', error_detail = 'no answer', attempts = 5,
               template = 'birthday', locale = 'default', version = 0, sent_at = $1, updated_at = $1,
               traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
        """,
        NOW,
    )
    place = f"/console/messages/{message_id}"
    told = text_of(await ada.get(place))
    assert "did not answer in time" in told
    assert "no answer" in told
    assert "2026-03-01 10:30 +01:00" in told
    assert f"Idempotency-Key {message_id}" in told
    assert "birthday, version 0" in told
    assert "0af7651916cd43dd8448eb211c80319c" in told
    assert "Failed for good, attempt 5" in told
    assert "Send this message again?" in text_of(await ada.post(f"{place}/retry"))
    shown = text_of(await ada.confirm(f"{place}/retry"))
    assert "The message is in the queue again." in shown
    assert "Sent again by console:ada" in shown
    assert (await api.get(f"/messages/{message_id}")).json["status"] == "queued"
    assert (await ada.post(f"{place}/retry", {"confirmed": "yes"})).status == 409


async def test_what_a_message_says_is_made_again_and_recorded(api: Api, ada: Browser) -> None:
    """With the version that it was sent with, although another one is active."""
    user_id = await add(ada, dateOfBirth="1990-03-01", timezone="UTC")
    message_id = await message_of(api, user_id)
    async with api.context.pool.acquire() as connection, connection.transaction():
        for text in ("Dear {{ first_name }}, {{ years }}", "Another text"):
            await publish(connection, "birthday", "default", Source(text), NOW, "test")
    await api.context.pool.execute("UPDATE message_logs SET template = 'birthday', locale = 'default', version = 1")
    place = f"/console/messages/{message_id}/said"
    assert "Dear Maria" not in text_of(await ada.post(place))
    assert "Dear Maria, 36" in text_of(await ada.post(place, {"confirmed": "yes"}))
    assert ("console:ada", "viewed") in await actions(api, message_id)


@pytest.mark.parametrize("path", ["users", "today"])
async def test_text_that_nobody_can_have_is_refused(ada: Browser, path: str) -> None:
    """PostgreSQL takes no null characters; a name has no line feeds."""
    for text in ("%00", "a@%00"):
        shown = await ada.get(f"/console/{path}?q={text}")
        assert (shown.status, ": has a NUL character" in text_of(shown)) == (422, True)
    shown = await ada.get(f"/console/{path}?q=a%0Ab")
    assert (shown.status, "cannot be searched for" in text_of(shown)) == (200, True)


async def test_today_has_whom_it_is_today_where_they_live(ada: Browser) -> None:
    """Not those whose day was yesterday or comes tomorrow, although their message is near in time."""
    for name, born, zone in (
        ("Here", "1990-03-01", "UTC"),
        ("East", "1990-03-01", "Pacific/Auckland"),
        ("West", "1990-03-01", "Pacific/Honolulu"),
        ("Tomorrow", "1990-03-02", "UTC"),
    ):
        await add(ada, firstName=name, dateOfBirth=born, timezone=zone, email=f"{name}@example.com", externalId="")
    shown = await ada.get("/console/today")
    names = re.findall(r'<a href="/console/users/[0-9a-f-]{36}">(\w+) Silva</a>', shown.text)
    # In Honolulu it is still 28 February, and in Auckland it is 22:30.
    assert sorted(names) == ["East", "Here"]
    assert "All 2 Waiting 2 Delivered 0" in text_of(shown)
    one = await ada.get("/console/today?zone=UTC&state=waiting&q=here")
    assert re.findall(r">(\w+) Silva</a>", one.text) == ["Here"]
    assert "Nobody is found" in text_of(await ada.get("/console/today?state=failed"))
    assert "is not a time zone" in text_of(await ada.get("/console/today?zone=Mars"))


async def test_a_day_with_a_message_for_nearly_everybody_is_read_in_parts(api: Api, ada: Browser) -> None:
    """A page looks at some thousands of messages only, says that its counts are not complete, and leads on."""
    await add(ada, dateOfBirth="1990-03-01", timezone="UTC")
    await api.context.pool.execute(
        """
        INSERT INTO message_logs (id, user_id, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from,
                                  created_at, updated_at)
        SELECT gen_random_uuid(), id, 2026, '2026-03-01', $1, $1, $1, $1, $1
        FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, 10000)) gone
        """,
        NOW - timedelta(minutes=10),
    )
    first = await ada.get("/console/today")
    assert "The list goes on" in text_of(first)
    assert "All 0+" in text_of(first)
    second = await ada.get(unescape(re.findall(r'href="([^"]+)" rel="next"', first.text)[0]))
    assert "Maria Silva" in text_of(second)


async def test_a_user_with_an_unknown_zone_has_a_page(api: Api, ada: Browser) -> None:
    """It is where the zone can be changed: the time zone data of this host may be older than the user."""
    user_id = await add(ada, dateOfBirth="1990-03-02", timezone="UTC")
    await api.context.pool.execute("UPDATE users SET timezone = 'Mars/Base'")
    shown = await ada.get(f"/console/users/{user_id}")
    assert (shown.status, "Mars/Base" in shown.text) == (200, True)
