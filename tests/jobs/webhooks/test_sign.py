"""Signatures: a vector of the standard's own, and the official client's verdict."""

import time
from base64 import b64encode

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.jobs.webhooks import key_of, signature

CLIENT = openai.OpenAI(api_key="none", base_url="http://127.0.0.1:9")


def test_the_vector_of_standard_webhooks() -> None:
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@settings(max_examples=50, deadline=None)
@given(
    st.binary(min_size=1, max_size=40).map(lambda key: f"whsec_{b64encode(key).decode()}") | st.text("aé=", min_size=1)
)
def test_the_official_client_agrees(secret: str) -> None:
    now, body = int(time.time()), '{"object": "event", "text": "日本"}'
    signed = signature(key_of(secret), "evt_1", now, body.encode())
    headers = {"webhook-id": "evt_1", "webhook-timestamp": str(now), "webhook-signature": signed}
    CLIENT.webhooks.verify_signature(body, headers, secret=secret)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        CLIENT.webhooks.verify_signature(body + " ", headers, secret=secret)


def test_no_base64_after_the_prefix() -> None:
    with pytest.raises(ValueError, match=r"base64|padding"):
        key_of("whsec_a")
