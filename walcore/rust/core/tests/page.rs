//! Pages against a slow and obvious model: a list of items.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use walcore::page::{HAS_FREE_LINES, ItemId, PageBuf, xid_precedes};

/// A small generator: the same numbers from the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn item(&mut self) -> Vec<u8> {
        let len = 1 + self.below(120);
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

fn items(page: &PageBuf) -> Vec<Vec<u8>> {
    let numbers = 1..=page.max_offset();
    numbers.map(|n| page.item(page.item_id(n).unwrap()).unwrap().to_vec()).collect()
}

/// Every byte between `upper` and the special space belongs to one item, padded.
fn is_compact(page: &PageBuf) -> bool {
    let used: usize = items(page).iter().map(|item| item.len().next_multiple_of(8)).sum();
    usize::from(page.upper()) + used == usize::from(page.special())
}

#[test]
fn an_index_page_keeps_the_items_that_a_list_keeps() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut page = PageBuf::zeroed();
        page.init(16);
        let mut model: Vec<Vec<u8>> = Vec::new();
        for _ in 0..120 {
            let at = random.below(model.len() + 1);
            match random.below(6) {
                0..=2 => {
                    let item = random.item();
                    if page.insert_item(&item, at as u16 + 1).is_ok() {
                        model.insert(at, item);
                    }
                }
                3 if at < model.len() => {
                    page.delete_item(at as u16 + 1).unwrap();
                    model.remove(at);
                }
                4 if at < model.len() => {
                    let item = random.item();
                    if page.overwrite_item(at as u16 + 1, &item).is_ok() {
                        model[at] = item;
                    }
                }
                _ => {
                    let chosen: Vec<usize> = (0..model.len()).filter(|_| random.below(4) == 0).collect();
                    let numbers: Vec<u16> = chosen.iter().map(|i| *i as u16 + 1).collect();
                    page.delete_items(&numbers).unwrap();
                    let mut index = 0;
                    model.retain(|_| {
                        index += 1;
                        !chosen.contains(&(index - 1))
                    });
                }
            }
            assert!(items(&page) == model, "seed={seed}");
            assert!(is_compact(&page), "seed={seed}");
        }
    }
}

#[test]
fn deleting_three_items_moves_the_rest_into_line_pointer_order_and_two_do_not() {
    // Items 1 to 5, of which 1 was added last and lies lowest.
    let filled = || {
        let mut page = PageBuf::zeroed();
        page.init(16);
        (2..=5).for_each(|n| page.append_item(&[n; 16]).unwrap());
        page.insert_item(&[1; 16], 1).unwrap();
        page
    };
    let offsets = |page: &PageBuf| -> Vec<usize> {
        (1..=page.max_offset()).map(|n| page.item_id(n).unwrap().offset()).collect()
    };

    let mut two = filled();
    two.delete_items(&[3, 4]).unwrap();
    let mut three = filled();
    three.delete_items(&[3, 4, 5]).unwrap();

    let special = usize::from(two.special());
    assert_eq!(offsets(&two), [special - 48, special - 16, special - 32]);
    assert_eq!(offsets(&three), [special - 16, special - 32]);
}

#[test]
fn a_page_refuses_what_does_not_fit() {
    let mut page = PageBuf::zeroed();
    page.init(0);

    assert!(page.insert_item(&[1; 8], 2).is_err(), "a gap in the line pointers");
    assert!(page.insert_item(&[1; 8], 0).is_err(), "no such number");
    assert!(page.insert_item(&[1; 8165], 1).is_err(), "no room beside the line pointer");
    assert!(page.insert_item(&[1; 8160], 1).is_ok());
    assert!(page.insert_item(&[], 2).is_ok(), "an empty item needs its line pointer only");
    assert!(page.insert_item(&[], 3).is_err());
    assert!(page.put_item(&[], 1).is_err(), "in use");
    assert!(page.delete_item(2).is_err(), "nothing is stored there");
    assert!(page.delete_items(&[1, 1, 2]).is_err(), "not ascending");
}

#[test]
fn pruning_closes_gaps_and_cuts_unused_line_pointers_off_the_end() {
    let mut page = PageBuf::zeroed();
    page.init(0);
    for n in 1..=6u8 {
        page.put_item(&[n; 40], n.into()).unwrap();
    }
    let mut lines: Vec<ItemId> = (1..=6).map(|n| page.item_id(n).unwrap()).collect();
    lines[0] = ItemId::new(3, ItemId::REDIRECT, 0);
    lines[1] = ItemId::new(0, ItemId::UNUSED, 0);
    lines[3] = ItemId::new(0, ItemId::DEAD, 0);
    lines[5] = ItemId::new(0, ItemId::UNUSED, 0);
    for (line, at) in lines.iter().zip((24..).step_by(4)) {
        page.bytes_mut()[at..at + 4].copy_from_slice(&line.0.to_le_bytes());
    }

    page.repair_fragmentation().unwrap();

    assert_eq!(page.max_offset(), 5);
    assert_eq!(page.flags() & HAS_FREE_LINES, HAS_FREE_LINES);
    assert_eq!(usize::from(page.upper()), 8192 - 2 * 40);
    assert_eq!(page.item(page.item_id(3).unwrap()).unwrap(), [3; 40]);
    assert_eq!(page.item(page.item_id(5).unwrap()).unwrap(), [5; 40]);
    assert_eq!(page.item_id(1).unwrap(), ItemId::new(3, ItemId::REDIRECT, 0));
}

#[test]
fn vacuum_keeps_one_line_pointer_on_a_page_where_all_are_unused() {
    let mut page = PageBuf::zeroed();
    page.init(0);
    for n in 1..=4u16 {
        page.put_item(&[], n).unwrap();
        let at = 20 + 4 * usize::from(n);
        page.bytes_mut()[at..at + 4].fill(0);
    }

    page.truncate_lines();

    assert_eq!(page.max_offset(), 1);
    assert_eq!(page.flags() & HAS_FREE_LINES, HAS_FREE_LINES);
}

#[test]
fn transactions_precede_round_the_clock_and_permanent_ones_come_first() {
    assert!(xid_precedes(100, 101) && !xid_precedes(101, 100) && !xid_precedes(100, 100));
    assert!(xid_precedes(u32::MAX, 5) && !xid_precedes(5, u32::MAX));
    assert!(xid_precedes(2, u32::MAX) && !xid_precedes(u32::MAX, 2));
}

#[test]
fn a_line_pointer_into_the_header_or_the_special_space_gives_no_item() {
    let mut page = PageBuf::zeroed();
    page.init(16);
    page.append_item(&[7; 24]).unwrap();
    let own = page.item_id(1).unwrap();
    assert_eq!(page.item(own), Ok(&[7; 24][..]));
    for (offset, len) in [(0, 24), (23, 2), (24, 4), (own.offset() - 8, 24), (own.offset(), 25), (8176, 8)] {
        let id = ItemId::new(offset, ItemId::NORMAL, len);
        assert!(page.item(id).is_err() && page.item_mut(id).is_err(), "offset={offset} len={len}");
    }
}
