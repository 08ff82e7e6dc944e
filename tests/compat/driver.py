"""Makes calls with whatever ``openai`` its interpreter has, and prints what came of each as JSON.

Reads ``{"url": ..., "jobs": [...]}`` from standard input. Needs nothing but the client.
"""

import json
import sys
import time
from typing import Any

import openai


def chat(client: Any, prompt: str, headers: dict[str, str], stream: bool = False) -> Any:
    said = [{"role": "user", "content": prompt}]
    create = client.chat.completions.create
    return create(model="scripted", messages=said, stream=stream, extra_headers=headers)


def chat_plain(client: Any, prompt: str, headers: dict[str, str]) -> Any:
    answer = chat(client, prompt, headers)
    return {"text": answer.choices[0].message.content, "request_id": answer._request_id}


def chat_stream(client: Any, prompt: str, headers: dict[str, str]) -> Any:
    chunks = list(chat(client, prompt, headers, stream=True))
    return {"text": "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)}


def chat_helper(client: Any, prompt: str, headers: dict[str, str]) -> Any:
    said = [{"role": "user", "content": prompt}]
    completions = getattr(client.chat.completions, "stream", None) or client.beta.chat.completions.stream
    with completions(model="scripted", messages=said, extra_headers=headers) as stream:
        stream.until_done()
        choice = stream.get_final_completion().choices[0]
    return {"text": choice.message.content, "finish": choice.finish_reason}


def completions_stream(client: Any, prompt: str, headers: dict[str, str]) -> Any:
    create = client.completions.create
    chunks = create(model="scripted", prompt=prompt, stream=True, extra_headers=headers)
    return {"text": "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)}


def responses_plain(client: Any, prompt: str, headers: dict[str, str]) -> Any:
    answer = client.responses.create(model="scripted", input=prompt, extra_headers=headers)
    return {"text": answer.output_text, "status": answer.status}


def responses_stream(client: Any, prompt: str, headers: dict[str, str]) -> Any:
    events = list(client.responses.create(model="scripted", input=prompt, stream=True, extra_headers=headers))
    failed = [event.response.error.message for event in events if event.type == "response.failed"]
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    return {"text": deltas, "last": events[-1].type, "failed": failed}


def responses_helper(client: Any, prompt: str, headers: dict[str, str]) -> Any:
    with client.responses.stream(model="scripted", input=prompt, extra_headers=headers) as stream:
        stream.until_done()
        final = stream.get_final_response()
    return {"text": final.output_text, "status": final.status}


def embeddings(client: Any, prompt: str, headers: dict[str, str]) -> Any:
    answer = client.embeddings.create(model="scripted", input=[prompt, "second"], extra_headers=headers)
    return {"vectors": [item.embedding for item in answer.data], "indexes": [item.index for item in answer.data]}


def models(client: Any, prompt: str, headers: dict[str, str]) -> Any:
    names = [model.id for model in client.models.list(extra_headers=headers)]
    return {"names": names, "one": client.models.retrieve(names[0]).id}


def unknown_model(client: Any, prompt: str, headers: dict[str, str]) -> Any:
    return {"one": client.models.retrieve("org/no:such model").id}


def passed_through(client: Any, prompt: str, headers: dict[str, str]) -> Any:
    """Paths that the proxy does not know, a body-less POST and DELETE, and query arrays, as this client writes them."""
    listed = client.get("/uploads", cast_to=object, options={"params": {"include": ["a", "b"]}})
    cancelled = client.post("/uploads/upload_1/cancel", cast_to=object)
    deleted = client.delete("/uploads/upload_1", cast_to=object)
    uploaded = client.audio.translations.with_raw_response.create(file=("in.wav", b"{}\n"), model="scripted")
    return {
        "targets": [listed["target"], cancelled["target"], deleted["target"]],
        "methods": [listed["method"], cancelled["method"], deleted["method"]],
        "upload": json.loads(uploaded.text if isinstance(uploaded.text, str) else uploaded.text())["size"],
    }


def batch(client: Any, prompt: str, headers: dict[str, str]) -> Any:
    """A file, a batch of it, its output, and all of them listed."""
    body = {"model": "scripted", "messages": [{"role": "user", "content": prompt}]}
    line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = client.files.create(file=("in.jsonl", json.dumps(line).encode() + b"\n"), purpose="batch")
    made = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"who": "compat"}
    )
    ends = time.monotonic() + 30
    while (seen := client.batches.retrieve(made.id)).status not in ("completed", "failed"):
        if time.monotonic() > ends:
            raise TimeoutError(seen.status)
        time.sleep(0.05)
    answer = json.loads(client.files.content(seen.output_file_id).text)
    return {
        "made": made.status,
        "status": seen.status,
        "counts": [seen.request_counts.total, seen.request_counts.completed, seen.request_counts.failed],
        "metadata": seen.metadata,
        "text": answer["response"]["body"]["choices"][0]["message"]["content"],
        "listed": made.id in [each.id for each in client.batches.list(limit=1)],
        "files": {file.id, seen.output_file_id} <= {each.id for each in client.files.list(limit=1)},
        "deleted": client.files.delete(file.id).deleted,
    }


def background(client: Any, prompt: str, headers: dict[str, str]) -> Any:
    """A Response of the background, followed from its middle, continued, looked into and deleted."""
    events = client.responses.create(model="scripted", input=prompt, background=True, stream=True)
    known = [next(iter(events)) for _ in range(3)]
    id, last = known[0].response.id, known[-1].sequence_number
    rest = list(client.responses.retrieve(id, stream=True, starting_after=last))
    done = client.responses.retrieve(id)
    again = client.responses.create(model="scripted", input="and then?", previous_response_id=id)
    items = [item.role for item in client.responses.input_items.list(id)]
    client.responses.delete(id)
    return {
        "numbers": [event.sequence_number for event in (*known, *rest)],
        "last": rest[-1].type,
        "status": done.status,
        "text": done.output_text,
        "again": again.previous_response_id == id,
        "items": items,
    }


def stored_chat(client: Any, prompt: str, headers: dict[str, str]) -> Any:
    """A chat completion that is kept, found and deleted."""
    said = [{"role": "user", "content": prompt}]
    made = client.chat.completions.create(model="scripted", messages=said, store=True, metadata={"who": prompt[:64]})
    found = client.chat.completions.retrieve(made.id)
    listed = [each.id for each in client.chat.completions.list(metadata={"who": prompt[:64]})]
    messages = [message.content for message in client.chat.completions.messages.list(made.id)]
    gone = client.chat.completions.delete(made.id).deleted
    same = found.choices[0].message.content == made.choices[0].message.content
    return {"same": same, "listed": listed == [made.id], "messages": messages == [prompt], "deleted": gone}


def wrong_method(client: Any, prompt: str, headers: dict[str, str]) -> Any:
    return client.delete(str(client.base_url).replace("/v1/", "/health"), cast_to=object)


CALLS = {
    function.__name__: function
    for function in (
        chat_plain,
        chat_stream,
        chat_helper,
        completions_stream,
        responses_plain,
        responses_stream,
        responses_helper,
        embeddings,
        models,
        unknown_model,
        passed_through,
        batch,
        background,
        stored_chat,
        wrong_method,
    )
}


def attempt(url: str, job: dict[str, Any]) -> dict[str, Any]:
    """What came of one job: its result, or its exception with everything that the client made of the error."""
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=job["retries"], timeout=60)
    try:
        return {"error": None, "result": CALLS[job["call"]](client, job["prompt"], job["headers"])}
    except openai.APIError as error:
        return {
            "error": type(error).__name__,
            "status": getattr(error, "status_code", None),
            "request_id": getattr(error, "request_id", None),
            "message": error.message,
            "type": error.type,
            "code": error.code,
            "param": error.param,
        }
    except Exception as error:  # noqa: BLE001  # the test must see an exception that is not the client's own
        return {"error": type(error).__name__, "message": str(error)}
    finally:
        client.close()


def main() -> None:
    order = json.load(sys.stdin)
    print(json.dumps({job["name"]: attempt(order["url"], job) for job in order["jobs"]}))


if __name__ == "__main__":
    main()
