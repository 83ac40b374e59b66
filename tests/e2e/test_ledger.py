"""The memory of acknowledged commits can be trusted: it has all of them and it notices one that is gone."""

from tests.fix_pg import NewServer
from tools.ledger import Id, Ledger, longest_stall
from tools.wait import until


def test_every_acknowledged_commit_is_remembered_and_a_lost_one_noticed(new_server: NewServer) -> None:
    server = new_server(fsync=False).start()
    ledger = Ledger(server)
    ledger.create()

    assert ledger.start(clients=4, duration_s=2).wait() == 0

    kept = {Id(*row) for row in server.query("select run, client, number from ledger")}
    assert {commit.id for commit in ledger.commits()} == kept
    assert len(kept) > 50
    ((gone,),) = server.query("delete from ledger where number = 3 and client = 2 returning number")
    assert ledger.missing_from(server) == {Id(1, 2, gone)}


def test_a_killed_server_has_all_that_was_acknowledged_before_the_kill(new_server: NewServer) -> None:
    server = new_server().start()
    ledger = Ledger(server)
    ledger.create()
    load = ledger.start(clients=4, duration_s=60)
    until(lambda: server.value("select count(*) from ledger") > 50, what="the load runs")

    server.kill()
    assert load.wait() != 0
    server.start()
    assert ledger.start(clients=2, duration_s=1).wait() == 0

    assert len({commit.id.run for commit in ledger.commits()}) == 2
    assert ledger.missing_from(server) == set()
    assert longest_stall(ledger.commits()) > 0.1
