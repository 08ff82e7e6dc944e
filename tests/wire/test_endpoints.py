"""Every published request field is keyed or excused by name."""

import json
from pathlib import Path

import pytest

from llmproxy.wire.endpoints import BY_PATH, ENDPOINTS

PUBLISHED = json.loads((Path(__file__).parent / "openai-fields.json").read_text())["operations"]

#: fields that change the answer: what is here is keyed, on purpose
KEYED = {
    "chat": "audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens "
    "messages modalities model moderation n parallel_tool_calls prediction presence_penalty reasoning_effort "
    "response_format seed stop temperature tool_choice tools top_logprobs top_p verbosity web_search_options",
    "completions": "best_of echo frequency_penalty logit_bias logprobs max_tokens model n presence_penalty prompt seed "
    "stop suffix temperature top_p",
    "embeddings": "dimensions model",
    "responses": "context_management conversation include input instructions max_output_tokens max_tool_calls model "
    "moderation parallel_tool_calls previous_response_id prompt reasoning temperature text tool_choice tools "
    "top_logprobs top_p truncation",
}


@pytest.mark.parametrize("name", sorted(KEYED))
def test_every_published_field_is_keyed_or_excused(name: str) -> None:
    row = next(row for row in ENDPOINTS if row.name == name)
    published = set(PUBLISHED[f"POST {row.paths[0]}"])
    keyed, excused = set(KEYED[name].split()), set(row.excused)
    assert published <= keyed | excused, "decide about these fields"
    assert not keyed & excused
    assert keyed <= published


def test_every_excuse_has_a_reason_and_every_path_one_row() -> None:
    assert all(reason for row in ENDPOINTS for reason in row.excused.values())
    assert len(BY_PATH) == sum(len(row.paths) for row in ENDPOINTS)
    assert len({row.name for row in ENDPOINTS}) == len(ENDPOINTS)


def test_a_stream_is_excused_where_one_entry_serves_both() -> None:
    for row in ENDPOINTS:
        assert ("stream" in row.excused) == row.dialect.both, row.name


@pytest.mark.parametrize("name", ["chat", "completions", "responses"])
def test_settings_that_steer_llama_cpp_and_not_the_answer_are_excused(name: str) -> None:
    row = next(row for row in ENDPOINTS if row.name == name)
    assert {"cache_prompt", "id_slot", "n_cache_reuse", "sse_ping_interval"} <= set(row.excused)
    assert not {"samplers", "grammar", "top_k", "min_p"} & set(row.excused)


def test_how_long_a_model_stays_loaded_is_excused() -> None:
    rows = [row for row in ENDPOINTS if row.name.startswith("ollama")]
    assert all("keep_alive" in row.excused for row in rows)


def test_what_only_some_endpoints_do() -> None:
    def those(feature: str) -> set[str]:
        return {row.name for row in ENDPOINTS if getattr(row, feature)}

    assert those("echoes") == {"responses"}
    assert those("per_input") == {"embeddings"}
    assert those("streams_by_default") == {"ollama-chat", "ollama-generate"}
    assert those("needs") == {"ollama-chat", "ollama-generate", "ollama-embed", "ollama-embeddings"}
    assert those("side_effects") == {"chat", "completions", "responses"}
    names = {row.name for row in ENDPOINTS}
    assert names - those("streams") == {"embeddings", "rerank", "ollama-embed", "ollama-embeddings"}
    assert names - {row.name for row in ENDPOINTS if row.dialect.json_requests} == {"transcriptions"}
