"""SLRU pages of the page store against a stopped server's own files: transactions, multixacts."""

from pathlib import Path

from tests.e2e.test_page_store import Store, slru_files
from tests.fix_pg import NewServer

# Each lock that a subtransaction adds to its parent's makes a multixact: they fill several pages.
LOCKS = """
    do $$
    begin
        perform 1 from shared for key share;
        for i in 1..5000 loop
            begin
                perform 1 from shared where id = i for no key update;
                if i % 100 = 0 then raise 'taken back'; end if;
            exception when raise_exception then null;
            end;
        end loop;
    end $$
"""
PAGES_MIN = {"pg_xact": 1, "pg_multixact/offsets": 3, "pg_multixact/members": 6}


def test_status_and_multixact_pages_equal_the_servers(folder: Path, new_server: NewServer) -> None:
    server = new_server(wal_keep_size="4GB", fsync=False).start()
    server.query("create table shared as select g as id from generate_series(1, 5000) g")
    server.query("create index on shared (id)")
    backup = server.base_backup(server.folder / "backup", "-X", "none")
    server.query(LOCKS)
    server.stop()

    store = Store(folder, server.data_dir / "pg_wal", server.major, backup)
    ingest = store.build()
    for piece in store.wal(store.start_lsn, store.end_lsn):
        ingest.feed(piece)
    reader = store.reader(ingest.open_layer())

    for kind, pages_min in PAGES_MIN.items():
        compared = 0
        for segment, file in slru_files(server.data_dir, kind):
            pages = file.read_bytes()
            for number in range(len(pages) // 8192):
                ours = reader.slru_page(kind, segment * 32 + number, store.end_lsn)
                theirs = pages[number * 8192 : (number + 1) * 8192]
                assert ours == theirs, f"{kind} page {segment * 32 + number}"
                compared += 1
        assert compared >= pages_min
