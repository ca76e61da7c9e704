"""The doubles of the outside world behave as the tests believe."""

import urllib.request

import confluent_kafka
import gcsfs
import pytest
import redis
from confluent_kafka.admin import AdminClient

from tests.services import Proxy
from tests.waiting import eventually


def test_an_upload_that_began_behind_the_proxy_goes_on_there(proxied_gcs: tuple[str, Proxy]) -> None:
    url, proxy = proxied_gcs
    bucket = url.removeprefix("gs://")
    begin = urllib.request.Request(
        f"http://{proxy.address}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&name=large", method="POST"
    )
    with urllib.request.urlopen(begin, timeout=10) as answer:
        assert answer.headers["Location"].startswith(f"http://{proxy.address}/")
    assert gcsfs.GCSFileSystem().ls(url) == []
    proxy.down()
    with pytest.raises(OSError, match="Connection refused"):
        urllib.request.urlopen(begin, timeout=10)


def test_kafka_behind_its_proxy_is_cut_off_with_it(kafka_proxy: Proxy) -> None:
    admin = AdminClient({"bootstrap.servers": kafka_proxy.address, "log_level": 0})
    (broker,) = admin.list_topics(timeout=10).brokers.values()
    assert broker.port == kafka_proxy.port
    kafka_proxy.down()
    with pytest.raises(confluent_kafka.KafkaException):
        admin.list_topics(timeout=0.5)
    kafka_proxy.up()
    eventually(lambda: _lists_topics(admin), what="an answer after the proxy came back")


def _lists_topics(admin: AdminClient) -> bool:
    try:
        admin.list_topics(timeout=1)
    except confluent_kafka.KafkaException:
        return False
    return True


def test_a_toxic_lasts_as_long_as_its_block(redis_proxy: Proxy) -> None:
    with redis.Redis.from_url(f"redis://{redis_proxy.address}/0", socket_timeout=0.3, retry=None) as client:
        assert client.ping()
        with redis_proxy.toxic("timeout", timeout=0), pytest.raises(redis.RedisError):
            client.ping()
        eventually(client.ping, what="an answer once the toxic has gone")
