"""Names of relation files."""

from pageserver.verify.relationfile import Folder, file_name, folder_path, relations_in


def test_files_of_a_fork_are_numbered_by_the_gigabyte() -> None:
    assert file_name(16384, "main", 131071) == "16384"
    assert file_name(16384, "vm", 131072) == "16384_vm.1"


def test_folders_go_by_tablespace() -> None:
    name = "PG_18_202506291"
    assert folder_path(1664, 0, tablespace_folder=name) == "global"
    assert folder_path(1663, 5, tablespace_folder=name) == "base/5"
    assert folder_path(16500, 5, tablespace_folder=name) == "pg_tblspc/16500/PG_18_202506291/5"


def test_what_can_be_redone_is_picked_out_of_a_folder() -> None:
    names = [
        "1255",
        "1255.1",
        "1255_fsm",
        "1255_vm",
        "16390",
        "16390_init",
        "16390_vm",
        "t3_16400",
        "PG_VERSION",
    ]
    found = relations_in(Folder(1663, 5, "base/5"), [*names, "pg_filenode.map", "16402.2"])

    assert [(relation.key.rel, relation.forks) for relation in found] == [
        (1255, ("main", "vm")),
        (16390, ("init",)),
        (16402, ("main",)),
    ]
    assert str(found[0].key) == "1663/5/1255"
    assert found[0].kind is None
