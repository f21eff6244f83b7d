"""Users, messages and pages of lists as JSON of the contract."""

from collections.abc import Sequence
from typing import Any

from aiohttp import hdrs, web

from birthday.core.dates import birthday_text
from birthday.core.message import ON_TIME
from birthday.core.user import extras_json
from birthday.core.zone import fixed_offset
from birthday.http.json_response import json_response
from birthday.store.history import Message
from birthday.store.users import User


def user_json(user: User) -> dict[str, Any]:
    """Return the JSON members of a user, in the order of the contract."""
    profile = user.profile
    offset = fixed_offset(profile.zone)
    return {
        "id": user.id,
        "firstName": profile.first_name,
        "lastName": profile.last_name,
        "email": profile.email,
        "dateOfBirth": birthday_text(profile.date_of_birth),
        "timezone": profile.zone if offset is None else None,
        "timezoneOffset": offset,
        **extras_json(profile.extras),
        "nextMessageAt": user.next_message_at,
        "occasions": [{"type": one.message_type, "date": one.on, "nextMessageAt": one.due_at} for one in user.upcoming],
        "createdAt": user.created_at,
        "updatedAt": user.updated_at,
    }


def message_json(message: Message) -> dict[str, Any]:
    """Return the JSON members of a message."""
    return {
        "id": message.id,
        "userId": message.user_id,
        "type": message.message_type,
        "status": message.status,
        "scheduledAt": message.scheduled_at,
        "occasionOn": message.occasion_on,
        "attempts": message.attempts,
        "nextAttemptAt": message.next_attempt_at,
        "queuedAt": message.queued_at,
        "sentAt": message.sent_at,
        "deliveredAt": message.delivered_at,
        "late": message.delivered_at is not None and message.delivered_at - message.scheduled_at > ON_TIME,
        "errorType": message.error_type,
        "errorDetail": message.error_detail,
        "template": message.template,
        "locale": message.locale,
        "version": message.version,
        "createdAt": message.created_at,
        "updatedAt": message.updated_at,
    }


def page_response(
    request: web.Request, name: str, items: Sequence[dict[str, Any]], next_cursor: str | None
) -> web.Response:
    """Return a page of a list; ``Link`` is the same request for the next one (RFC 8288)."""
    response = json_response({name: items, "nextCursor": next_cursor})
    if next_cursor is not None:
        response.headers[hdrs.LINK] = f'<{request.rel_url.update_query(cursor=next_cursor)}>; rel="next"'
    return response
