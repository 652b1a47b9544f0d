"""What the reward pool costs beside the reward itself.

`python -m benchmarks.reward_pool`; the last line is JSON. An item is one (problem, response)
pair scored by `numeric_reward`, each text another one, so that the cache answers none.
"""

import json
import time
from dataclasses import replace
from typing import Any

from rewards.mathematics import numeric_reward
from rewards.pool import RewardPool, ScoringConfig
from rewards.problem import Problem, Response
from rewards.scorer import Inline, Scorer

PROBLEM = Problem(id="bench/1", prompt="What is 3 + 5?", answer="8", source="bench")
REASONING = "First I add 3 and 5, which gives 8. "


def responses(num_items: int, num_chars: int) -> list[Response]:
    """Different texts of about a length, half of them right."""
    body = (REASONING * (num_chars // len(REASONING) + 1))[:num_chars]
    return [
        Response(text=f"{body}{index}</think>The answer is {8 + index % 2}", prefill="<think>")
        for index in range(num_items)
    ]


def pool_overhead(num_items: int = 5000, num_chars: int = 2000, workers: int = 1) -> dict[str, Any]:
    """Milliseconds an item, by the clock: inline, pooled, and pooled from the cache.

    `pool_overhead_ms` is pooled less inline, many items in flight; `pool_round_trip_ms` is one
    at a time.
    """
    items = responses(num_items, num_chars)
    inline_ms = _each_ms(Inline(numeric_reward), items)
    with RewardPool(numeric_reward, ScoringConfig(workers=workers)) as pool:
        pool(PROBLEM, Response(text="8"))
        pooled_ms = _each_ms(pool, items)
        cached_ms = _each_ms(pool, items)
        began = time.perf_counter()
        fresh = [replace(item, text=item.text + ".") for item in items[: num_items // 10]]
        for item in fresh:
            pool(PROBLEM, item)
        round_trip_ms = 1e3 * (time.perf_counter() - began) / len(fresh)
    return {
        "pool_items": num_items,
        "pool_chars": num_chars,
        "pool_workers": workers,
        "pool_inline_ms": round(inline_ms, 4),
        "pool_item_ms": round(pooled_ms, 4),
        "pool_overhead_ms": round(pooled_ms - inline_ms, 4),
        "pool_round_trip_ms": round(round_trip_ms, 4),
        "pool_cached_ms": round(cached_ms, 4),
    }


def _each_ms(scorer: Scorer, items: list[Response]) -> float:
    began = time.perf_counter()
    futures = [scorer.submit(PROBLEM, [item]) for item in items]
    for future in futures:
        future.result()
    return 1e3 * (time.perf_counter() - began) / len(items)


if __name__ == "__main__":
    print(json.dumps(pool_overhead()))
