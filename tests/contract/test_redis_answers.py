"""What a push was answered, kept in a real Redis: found by who asks with the same key, and gone by itself."""

from collections.abc import Callable

import pytest
import redis

from serving.pushing.repeated import KEPT_FOR
from sinks.redis_answers import RedisAnswers
from sinks.redis_link import RedisLink
from stillwell.errors import StoreError
from stillwell.layout.redis_keys import RedisKeys
from tests.online_support import AnyRedisServer, executables
from tests.services import Proxy


@pytest.mark.parametrize("name", list(executables()))
async def test_an_answer_is_found_by_its_key_for_as_long_as_it_is_kept(
    name: str, redis_of: Callable[[str], AnyRedisServer], namespace: str
) -> None:
    keys = RedisKeys("test", namespace)
    url = redis_of(name).url
    link = RedisLink(url, 5.0, 2)
    try:
        answers = RedisAnswers(link, keys)
        assert await answers.find("Users", "ab12") is None
        await answers.keep("Users", "ab12", b"\0answer", KEPT_FOR)
        assert await answers.find("Users", "ab12") == b"\0answer"
        assert await answers.find("Users", "ab13") is None
        assert await answers.find("Places", "ab12") is None
        assert await RedisAnswers(link, RedisKeys("test", "another")).find("Users", "ab12") is None
    finally:
        await link.close()
    with redis.Redis.from_url(url) as client:
        assert KEPT_FOR - 60 < client.ttl(keys.answer("Users", "ab12")) <= KEPT_FOR


async def test_a_redis_that_is_away_is_told(redis_proxy: Proxy, namespace: str) -> None:
    link = RedisLink(f"redis://{redis_proxy.address}/0", 0.3, 2)
    try:
        answers = RedisAnswers(link, RedisKeys("test", namespace))
        redis_proxy.down()
        with pytest.raises(StoreError):
            await answers.find("Users", "ab12")
        with pytest.raises(StoreError):
            await answers.keep("Users", "ab12", b"answer", KEPT_FOR)
    finally:
        await link.close()
