"""The network interface that gloo meets over, between nodes."""

import os
import socket

import pytest

from genre_lightning.distributed.preemption import choose_interface
from genre_lightning.errors import ConfigError

HERE = socket.if_nameindex()[0][1]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")  # so that what is set is undone
        monkeypatch.delenv(name)
    return monkeypatch


def test_gloo_follows_nccl(environment):
    environment.setenv("NCCL_SOCKET_IFNAME", HERE)
    choose_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == HERE


def test_its_own_interface_wins(environment):
    environment.setenv("NCCL_SOCKET_IFNAME", HERE)
    environment.setenv("GLOO_SOCKET_IFNAME", "ib7")
    choose_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib7"


@pytest.mark.parametrize("given", [None, "^docker0", "no,interfaces"])
def test_a_name_that_is_of_this_host_alone_is_refused(environment, given):
    if given:
        environment.setenv("NCCL_SOCKET_IFNAME", given)
    environment.setattr(socket, "gethostbyname", lambda host: "127.0.1.1")
    with pytest.raises(ConfigError, match=r"127\.0\.1\.1.*set GLOO_SOCKET_IFNAME"):
        choose_interface()
    environment.setattr(socket, "gethostbyname", lambda host: "10.0.0.7")
    choose_interface()
