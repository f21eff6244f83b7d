"""Signatures of Standard Webhooks."""

from birthday.core.signing import parse_signing_secrets, sign


def test_the_example_of_the_specification() -> None:
    """The signature is the one that Standard Webhooks 1.0 gives for its example."""
    keys = parse_signing_secrets("whsec_plJ3nmyCDGBKInavdOK15jsl")
    body = b'{"event_type":"ping","data":{"success":true}}'

    signature = sign(keys, "msg_loFOjxBNrRLzqYUf", 1731705121, body)

    assert signature == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="
