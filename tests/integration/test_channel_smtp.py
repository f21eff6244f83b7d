"""The e-mail channel against a mail server: what goes out, and what each answer or fault at each step means."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from birthday.channels import Delivered, Greeting, Permanent, Temporary, Unable
from birthday.channels.smtp.channel import SmtpChannel
from birthday.config import read_sender, read_smtp_url
from birthday.core.message import ErrorType
from birthday.errors import UnavailableError
from tests.support.certificates import Certificates
from tests.support.clock import ManualClock
from tests.support.mail_server import PASSWORD, USER, Fault, MailServer

GREETING = Greeting(
    UUID("0198c0de-0000-7000-8000-00000000ada1"), "ada@example.com", "Hey, Ada Lovelace it's your birthday"
)
HALF = "Hey \ud83d"
SOON = timedelta(milliseconds=150)
LOGIN = f"{USER.replace('@', '%40')}:{PASSWORD.replace('/', '%2F')}@"

Connect = Callable[..., SmtpChannel]


@pytest.fixture
async def channel_to() -> AsyncIterator[Connect]:
    """Channels such as the program opens. They are closed after the test."""
    channels = []

    def connect(
        url: str,
        authorities: Path | None = None,
        timeout: timedelta = timedelta(seconds=10),
        sender: str = "b@x.example",
    ) -> SmtpChannel:
        server = read_smtp_url(url)
        channels.append(SmtpChannel(server, read_sender(sender), authorities, 4, timeout, ManualClock()))
        return channels[-1]

    yield connect
    for channel in channels:
        await channel.close()


def not_arrived(reason: str, *, refused: bool = False) -> Temporary:
    """Return what is expected of a failure before the text was sent: no greeting is at fault, none has arrived."""
    return Temporary(ErrorType.EXTERNAL_API_ERROR, reason, refused=refused, handed_over=False)


class TestWhatGoesOut:
    """The e-mail and its envelope."""

    async def test_plain_text(self, channel_to: Connect, mail_server: MailServer) -> None:
        """A greeting is one e-mail to one recipient, with a date by the clock and an id that no attempt changes."""
        channel = channel_to(mail_server.url, sender="Grüße <hello@münchen.example>")

        assert [await channel.send(GREETING), await channel.send(GREETING)] == [Delivered(), Delivered()]

        first, second = mail_server.mails
        assert (first.sender, first.recipient) == ("hello@xn--mnchen-3ya.example", "ada@example.com")
        assert first.data == second.data
        assert first.data.split(b"\r\n") == [
            b"From: =?utf-8?q?Gr=C3=BC=C3=9Fe?= <hello@xn--mnchen-3ya.example>",
            b"To: ada@example.com",
            b"Subject: Hey, Ada Lovelace it's your birthday",
            b"Date: Sun, 01 Mar 2026 09:00:00 +0000",
            b"Message-ID: <0198c0de-0000-7000-8000-00000000ada1@xn--mnchen-3ya.example>",
            b"Auto-Submitted: auto-generated",
            b'Content-Type: text/plain; charset="utf-8"',
            b"Content-Transfer-Encoding: 7bit",
            b"MIME-Version: 1.0",
            b"",
            b"Hey, Ada Lovelace it's your birthday",
            b"",
        ]

    async def test_text_and_html(self, channel_to: Connect, mail_server: MailServer) -> None:
        """With HTML there are two parts, the better one last; lines of any length and any characters arrive intact."""
        text = f".\n..\nHé 🎂\r\n{'long ' * 500}\n.end"
        html = f'<p style="color:#a00">.Hé</p>\n.\n{"<b>x</b>" * 400}'

        await channel_to(mail_server.url).send(GREETING._replace(text=text, html=html, subject="Hé 🎂"))

        [mail] = mail_server.mails
        assert mail.message.get_content_type() == "multipart/alternative"
        plain, rich = mail.message.iter_parts()
        assert (plain.get_content_type(), rich.get_content_type()) == ("text/plain", "text/html")
        assert plain.get_content().splitlines() == text.splitlines()
        assert rich.get_content().splitlines() == html.splitlines()
        assert mail.message["Subject"] == "Hé 🎂"
        assert max(map(len, mail.data.split(b"\r\n"))) <= 78
        assert mail.data.isascii()

    async def test_unsubscribing(self, channel_to: Connect, mail_server: MailServer) -> None:
        """The link is in the two headers that mail programs make a button of, in one line and readable as it is."""
        url = f"https://birthday.example.com/unsubscribe/{'t' * 300}"

        await channel_to(mail_server.url).send(GREETING._replace(unsubscribe_url=url))

        headers = mail_server.mails[0].data.split(b"\r\n\r\n")[0].decode().split("\r\n")
        assert f"List-Unsubscribe: <{url}>" in headers
        assert "List-Unsubscribe-Post: List-Unsubscribe=One-Click" in headers

    @pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\x0b", "\x0c", "\x1e", "\x85", "\u2028", "\x00"])
    async def test_no_header_can_be_added(self, channel_to: Connect, mail_server: MailServer, end: str) -> None:
        """A subject with any kind of line end is still one header, and the text begins where it should."""
        subject = f"Hi Ada{end}Bcc: eve@example.com{end}{end}Buy this"
        for given in (GREETING._replace(subject=subject), GREETING._replace(text=f"{end}{subject}")):
            await channel_to(mail_server.url).send(given)

        for mail in mail_server.mails:
            assert mail.message["Bcc"] is None
            assert "Buy this" not in mail.data.decode().split("\r\n\r\n")[0].replace(mail.message["Subject"], "")
            assert mail.recipient == "ada@example.com"

    @pytest.mark.parametrize(
        "address", ["o'brien+x@example.com", '"a,b"@example.com', '"a\\"b@c"@example.com', f"{'a' * 64}@{'b' * 60}.com"]
    )
    async def test_unusual_addresses(self, channel_to: Connect, mail_server: MailServer, address: str) -> None:
        """Every address that a user may have is the envelope's recipient, exactly as it is stored."""
        await channel_to(mail_server.url).send(GREETING._replace(email=address))

        assert mail_server.mails[0].recipient == address
        assert mail_server.mails[0].message["To"] == address

    async def test_an_address_beyond_ascii(self, channel_to: Connect, mail_server: MailServer) -> None:
        """It needs SMTPUTF8: with it, the address arrives as it is. A server without it gets nothing."""
        greeting = GREETING._replace(email="þórdís@xn--mnchen-3ya.de")
        async with MailServer(offers=("PIPELINING",)) as old:
            refused = await channel_to(old.url).send(greeting)
            accepted = await channel_to(mail_server.url).send(greeting)

        assert (accepted, mail_server.mails[0].recipient) == (Delivered(), "þórdís@xn--mnchen-3ya.de")
        assert mail_server.commands[1][1].endswith(" SMTPUTF8 BODY=8BITMIME")
        reason = "the mail server offers no SMTPUTF8, which the address needs"
        assert (refused, old.mails) == (Permanent(ErrorType.VALIDATION_ERROR, reason), [])

    async def test_a_server_without_extensions(self, channel_to: Connect) -> None:
        """Neither pipelining nor anything else is needed."""
        async with MailServer(offers=()) as server:
            assert await channel_to(server.url).send(GREETING._replace(text="Hé")) == Delivered()

        assert server.mails[0].text == "Hé\n"

    async def test_a_real_mail_server(self, channel_to: Connect) -> None:
        """aiosmtpd, which somebody else wrote, takes the same e-mails in one connection."""
        taken: list[Envelope] = []

        class Handler:
            async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
                taken.append(envelope)
                return "250 OK"

        server = await asyncio.get_running_loop().create_server(
            lambda: SMTP(Handler(), hostname="x.example", enable_SMTPUTF8=True), "127.0.0.1", 0
        )
        channel = channel_to(f"smtp://localhost:{server.sockets[0].getsockname()[1]}?starttls=false")
        async with server:
            for email in ("ada@example.com", "þórdís@example.com"):
                assert await channel.send(GREETING._replace(email=email, text=".\nHé")) == Delivered()
            await channel.close()

        assert [envelope.rcpt_tos for envelope in taken] == [["ada@example.com"], ["þórdís@example.com"]]
        assert all(isinstance(one.content, bytes) and one.content.endswith(b"\r\n.\r\nH=C3=A9\r\n") for one in taken)


class TestConnections:
    """They are kept, and replaced when they are gone."""

    async def test_one_connection_for_many(self, channel_to: Connect, mail_server: MailServer) -> None:
        """Greetings that follow each other share a connection, also after a recipient was refused."""
        channel = channel_to(mail_server.url)
        mail_server.answer("RCPT", "250 Ok", "550 5.1.1 unknown", "250 Ok")

        for _ in range(3):
            await channel.send(GREETING)

        assert (len(mail_server.mails), mail_server.connections) == (2, 1)

    @pytest.mark.parametrize("fault", ["421 4.4.2 idle for too long", Fault.CLOSE])
    async def test_a_connection_that_was_closed_meanwhile(
        self, channel_to: Connect, mail_server: MailServer, fault: str | Fault
    ) -> None:
        """A kept connection that the server gave up is replaced within the same attempt: nothing had been sent."""
        channel = channel_to(mail_server.url)
        await channel.send(GREETING)
        mail_server.answer("MAIL", fault)

        assert await channel.send(GREETING) == Delivered()
        assert (len(mail_server.mails), mail_server.connections) == (2, 2)

    async def test_concurrent_sends(self, channel_to: Connect, mail_server: MailServer) -> None:
        """Each send under way has a connection of its own."""
        channel = channel_to(mail_server.url)

        outcomes = await asyncio.gather(*(channel.send(GREETING) for _ in range(4)))

        assert outcomes == [Delivered()] * 4
        assert {mail.connection for mail in mail_server.mails} == {1, 2, 3, 4}

    async def test_it_takes_its_leave(self, channel_to: Connect, mail_server: MailServer) -> None:
        """A connection that is not needed any more ends with QUIT."""
        channel = channel_to(mail_server.url)
        await channel.send(GREETING)
        await channel.close()

        async with asyncio.timeout(5):
            while mail_server.commands[-1] != (1, "QUIT"):
                await asyncio.sleep(0.005)


class TestEncryptionAndLogin:
    """TLS with a private authority, and AUTH."""

    @pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "implicit"])
    async def test_tls(self, channel_to: Connect, certificates: Certificates, *, implicit: bool) -> None:
        """With its authority the server is trusted, and gets the login only after that; otherwise it gets nothing."""
        async with MailServer(certificates.server, implicit=implicit) as server:
            url = server.url.replace("://", f"://{LOGIN}")
            accepted = await channel_to(url, certificates.authority).send(GREETING)
            verbs = [line.partition(" ")[0] for _, line in server.commands]
            refused = await channel_to(url).send(GREETING)

        assert accepted == Delivered()
        assert verbs[-5:] == ["EHLO", "AUTH", "MAIL", "RCPT", "DATA"]
        during = "cannot connect" if implicit else "the connection broke during STARTTLS"
        assert isinstance(refused, Temporary)
        assert refused.reason.startswith(f"{during}: certificate refused: ")
        assert len(server.mails) == 1

    async def test_no_starttls(self, channel_to: Connect, mail_server: MailServer) -> None:
        """A server without STARTTLS gets neither login nor e-mail: somebody on the way may have removed the offer."""
        outcome = await channel_to(f"smtp://{LOGIN}{mail_server.host}").send(GREETING)

        reason = "it offers no STARTTLS; smtps:// or ?starttls=false in SMTP_URL may fit it"
        assert outcome == not_arrived(f"the mail server cannot be used: {reason}", refused=True)
        assert [line.partition(" ")[0] for _, line in mail_server.commands] == ["EHLO"]

    @pytest.mark.parametrize("offer", ["AUTH PLAIN LOGIN", "AUTH PLAIN CRAM-MD5"])
    async def test_wrong_login(self, channel_to: Connect, offer: str) -> None:
        """It is tried once for each connection, and refused to everybody: nobody's greeting is at fault."""
        async with MailServer(offers=(offer,)) as server:
            outcome = await channel_to(f"smtp://eve:wrong@{server.host}?starttls=false").send(GREETING)

        assert outcome == not_arrived("the mail server answered 535 5.7.8 to AUTH", refused=True)
        assert isinstance(outcome, Temporary)
        assert outcome.status == 535
        assert [line.partition(" ")[0] for _, line in server.commands] == ["EHLO", "AUTH"]

    async def test_no_login_offered(self, channel_to: Connect) -> None:
        """A server that knows no login cannot be the one that the settings mean."""
        async with MailServer(offers=()) as server:
            outcome = await channel_to(f"smtp://{LOGIN}{server.host}?starttls=false").send(GREETING)

        reason = "the mail server cannot be used: it offers no login by PLAIN, LOGIN or CRAM-MD5"
        assert outcome == not_arrived(reason, refused=True)


BEFORE = ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA"]
NAMES = {"CONNECT": "the connection", "DOT": "the e-mail"}


class TestFaults:
    """What each answer, silence and broken connection means at each step."""

    @pytest.mark.parametrize("step", [*BEFORE, "DOT"])
    async def test_421(self, channel_to: Connect, mail_server: MailServer, step: str) -> None:
        """It is about the service, at any step; the next attempt has a new connection."""
        channel = channel_to(mail_server.url)
        mail_server.answer(step, "421 4.3.2 shutting down")

        outcome = await channel.send(GREETING)

        assert outcome == not_arrived(f"the mail server answered 421 4.3.2 to {NAMES.get(step, step)}")
        assert isinstance(outcome, Temporary)
        assert (outcome.may_have_arrived, outcome.answers_for_the_letter, outcome.outage) == (False, False, True)
        assert await channel.send(GREETING) == Delivered()
        assert mail_server.connections == 2

    @pytest.mark.parametrize("step", BEFORE)
    @pytest.mark.parametrize("fault", Fault)
    async def test_nothing_arrived(self, channel_to: Connect, mail_server: MailServer, step: str, fault: Fault) -> None:
        """Before the text is sent, a connection that breaks and a server that never answers mean: not arrived."""
        channel = channel_to(mail_server.url, timeout=SOON)
        mail_server.answer(step, fault)

        outcome = await channel.send(GREETING)

        name = NAMES.get(step, step)
        broke = "cannot connect" if step == "CONNECT" else f"the connection broke during {step}"
        late = f"the mail server did not answer to {name} within 0.15 s"
        assert outcome == not_arrived(late if fault is Fault.SILENCE else f"{broke}: it was closed by the other side")
        assert isinstance(outcome, Temporary)
        assert not outcome.may_have_arrived
        assert await channel.send(GREETING) == Delivered()

    @pytest.mark.parametrize("step", ["CONTENT", "DOT"])
    @pytest.mark.parametrize("fault", Fault)
    async def test_it_may_have_arrived(
        self, channel_to: Connect, mail_server: MailServer, step: str, fault: Fault
    ) -> None:
        """After the final dot was sent, only an answer tells: without one, the e-mail may have arrived."""
        mail_server.answer(step, fault)

        outcome = await channel_to(mail_server.url, timeout=SOON).send(GREETING)

        assert isinstance(outcome, Temporary)
        assert outcome.may_have_arrived
        expected = ErrorType.TIMEOUT if fault is Fault.SILENCE else ErrorType.EXTERNAL_API_ERROR
        assert (outcome.error_type, outcome.answers_for_the_letter) == (expected, False)
        assert len(mail_server.mails) == (step == "DOT")

    @pytest.mark.parametrize("step", ["RCPT", "DATA", "DOT"])
    async def test_greylisting(self, channel_to: Connect, mail_server: MailServer, step: str) -> None:
        """4yz about a recipient asks that greeting to wait, longer each time, and others may go on meanwhile."""
        channel = channel_to(mail_server.url)
        mail_server.answer(step, *["451 4.7.1 try again later"] * 3)

        outcomes = [await channel.send(GREETING._replace(attempt=attempt)) for attempt in (1, 2, 100)]

        reason = f"the mail server answered 451 4.7.1 to {NAMES.get(step, step)}"
        waits = [timedelta(seconds=5), timedelta(seconds=20), timedelta(minutes=10)]
        assert outcomes == [Temporary(ErrorType.EXTERNAL_API_ERROR, reason, wait) for wait in waits]
        assert all(isinstance(one, Temporary) and one.answers_for_the_letter for one in outcomes)
        assert await channel.send(GREETING) == Delivered()
        assert mail_server.connections == 1

    @pytest.mark.parametrize(
        ("step", "answer", "error_type", "refused"),
        [
            ("RCPT", "550 5.1.1 no such user", ErrorType.PERMANENT_FAILURE, False),
            ("RCPT", "553 5.1.3 bad address", ErrorType.VALIDATION_ERROR, False),
            ("DOT", "552 5.3.4 too big", ErrorType.PERMANENT_FAILURE, False),
            ("DATA", "554 no valid recipients", ErrorType.PERMANENT_FAILURE, False),
            ("RCPT", "554 5.7.1 relay access denied", ErrorType.PERMANENT_FAILURE, True),
            ("RCPT", "550 relay not permitted", ErrorType.PERMANENT_FAILURE, True),
            ("RCPT", "530 authentication required", ErrorType.PERMANENT_FAILURE, True),
            ("DOT", "550 5.7.1 looks like spam", ErrorType.PERMANENT_FAILURE, True),
        ],
    )
    async def test_permanent(
        self,
        channel_to: Connect,
        mail_server: MailServer,
        step: str,
        answer: str,
        error_type: ErrorType,
        *,
        refused: bool,
    ) -> None:
        """5yz is about the recipient; one of policy may be about every recipient, which is found out by the others."""
        channel = channel_to(mail_server.url)
        mail_server.answer(step, answer)

        outcome = await channel.send(GREETING)

        assert isinstance(outcome, Permanent)
        assert (outcome.error_type, outcome.status, outcome.refused) == (error_type, int(answer[:3]), refused)
        assert outcome.reason.startswith(f"the mail server answered {answer[:3]}")
        assert await channel.send(GREETING) == Delivered()

    @pytest.mark.parametrize("step", ["CONNECT", "EHLO", "MAIL"])
    async def test_refused_to_everybody(self, channel_to: Connect, mail_server: MailServer, step: str) -> None:
        """5yz before a recipient is named refuses everybody, so that no greeting fails for it."""
        mail_server.answer(step, "554 5.7.1 go away")

        outcome = await channel_to(mail_server.url).send(GREETING)

        assert outcome == not_arrived(f"the mail server answered 554 5.7.1 to {NAMES.get(step, step)}", refused=True)
        assert isinstance(outcome, Temporary)
        assert (outcome.refused, outcome.status) == (True, 554)

    @pytest.mark.parametrize("answer", ["hello", "250 what", "99", f"250 {'x' * 40_000}", "354 go on"])
    @pytest.mark.parametrize("step", ["CONNECT", "MAIL", "DOT"])
    async def test_nonsense(self, channel_to: Connect, mail_server: MailServer, step: str, answer: str) -> None:
        """An answer that is none, or unexpected, is never taken for an acceptance, and the channel goes on."""
        channel = channel_to(mail_server.url, timeout=timedelta(seconds=1))
        mail_server.answer(step, answer)
        outcome = await channel.send(GREETING)

        accepted = answer == "250 what" and step != "CONNECT"
        assert (outcome == Delivered()) is accepted
        if not accepted:
            assert isinstance(outcome, Temporary)
            assert outcome.may_have_arrived is (step == "DOT")
        assert await channel.send(GREETING) == Delivered()

    async def test_nobody_listens(self, channel_to: Connect, mail_server: MailServer) -> None:
        """No connection, nothing sent."""
        await mail_server.stop()

        assert await channel_to(mail_server.url).send(GREETING) == not_arrived("cannot connect: Connection refused")

    async def test_no_name(self, channel_to: Connect) -> None:
        """A name service that knows no such server is no fault of a greeting either."""
        outcome = await channel_to("smtp://mail.invalid?starttls=false").send(GREETING)

        assert isinstance(outcome, (Temporary, Unable))
        assert not outcome.answer_lost

    async def test_no_address_in_a_reason(self, channel_to: Connect, mail_server: MailServer) -> None:
        """The server's words may repeat the address, which belongs in no log and no row."""
        mail_server.answer("RCPT", "550 5.1.1 <ada@example.com>: unknown, ada@example.com")

        outcome = await channel_to(mail_server.url).send(GREETING)

        assert outcome == Permanent(ErrorType.PERMANENT_FAILURE, "the mail server answered 550 5.1.1 to RCPT")

    @pytest.mark.parametrize(
        "greeting", [GREETING._replace(text=HALF), GREETING._replace(subject=HALF), GREETING._replace(html=HALF)]
    )
    async def test_a_text_that_cannot_be_written(
        self, channel_to: Connect, mail_server: MailServer, greeting: Greeting
    ) -> None:
        """Half a surrogate pair is no character: the greeting fails for good, for certain unsent, and says so."""
        outcome = await channel_to(mail_server.url).send(greeting)

        reason = "no e-mail can be made of this text or address: UnicodeEncodeError"
        assert outcome == Permanent(ErrorType.VALIDATION_ERROR, reason)
        assert isinstance(outcome, Permanent)
        assert (outcome.handed_over, mail_server.connections) == (False, 0)


class TestCheck:
    """What readiness and ``birthday check`` ask."""

    async def test_it_is_cheap(self, channel_to: Connect, mail_server: MailServer) -> None:
        """One connection and one login serve several checks and the next e-mail; nothing is sent."""
        channel = channel_to(f"smtp://{LOGIN}{mail_server.host}?starttls=false")

        await channel.check()
        assert await channel.try_key() == "the login is accepted; so is the sender"
        assert mail_server.mails == []
        await channel.send(GREETING)

        assert (mail_server.connections, len(mail_server.mails)) == (1, 1)

    @pytest.mark.parametrize(
        ("step", "answer", "said"),
        [
            ("AUTH", "535 5.7.8 no", "AUTH is answered 535 5.7.8"),
            ("MAIL", "550 5.7.1 not your address", "MAIL is answered 550 5.7.1"),
            ("EHLO", Fault.CLOSE, "it was closed by the other side"),
            ("CONNECT", Fault.SILENCE, "no answer to the connection in 0.15 s"),
        ],
    )
    async def test_what_is_wrong(
        self, channel_to: Connect, mail_server: MailServer, step: str, answer: str | Fault, said: str
    ) -> None:
        """A refusal or silence is told with the place, and without the password."""
        mail_server.answer(step, answer)
        channel = channel_to(f"smtp://{LOGIN}{mail_server.host}?starttls=false", timeout=SOON)

        with pytest.raises(UnavailableError) as raised:
            await channel.check()

        assert str(raised.value).endswith(f"smtp://{mail_server.host}: {said}")
