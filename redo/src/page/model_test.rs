//! Page primitives against a model: a list of items, each with its bytes and the state of its line pointer.

use proptest::prelude::*;

use super::*;

const SPECIAL_BYTES: usize = 16;

/// What the page must hold.
#[derive(Clone, Debug, Default)]
struct Model(Vec<Option<Vec<u8>>>);

impl Model {
    fn used_bytes(&self) -> usize {
        self.0.iter().flatten().map(|item| align(item.len())).sum()
    }

    fn free(&self) -> usize {
        BLOCK_BYTES - SPECIAL_BYTES - HEADER_BYTES - self.0.len() * LINE_POINTER_BYTES - self.used_bytes()
    }

    fn drop_unused_tail(&mut self, keep: usize) {
        while self.0.len() > keep && self.0.last().is_some_and(Option::is_none) {
            self.0.pop();
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    AddBefore(usize, Vec<u8>),
    AddToFree(Vec<u8>),
    Delete(usize),
    DeleteNoCompact(usize),
    DeleteMany(Vec<usize>),
    Overwrite(usize, Vec<u8>),
    Free(Vec<usize>),
    Repair,
    Truncate,
}

fn item() -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), prop_oneof![1usize..60, 500usize..900]).prop_map(|(byte, bytes)| vec![byte; bytes])
}

fn step() -> impl Strategy<Value = Step> {
    let many = || proptest::collection::vec(any::<usize>(), 1..8);
    prop_oneof![
        4 => (any::<usize>(), item()).prop_map(|(at, item)| Step::AddBefore(at, item)),
        4 => item().prop_map(Step::AddToFree),
        2 => any::<usize>().prop_map(Step::Delete),
        1 => any::<usize>().prop_map(Step::DeleteNoCompact),
        1 => many().prop_map(Step::DeleteMany),
        2 => (any::<usize>(), item()).prop_map(|(at, item)| Step::Overwrite(at, item)),
        1 => many().prop_map(Step::Free),
        1 => Just(Step::Repair),
        1 => Just(Step::Truncate),
    ]
}

/// Index functions want every line pointer to have storage.
fn is_dense(model: &Model) -> bool {
    !model.0.is_empty() && model.0.iter().all(Option::is_some)
}

fn perform(step: &Step, page: &mut Page, model: &mut Model) {
    let count = model.0.len();
    match step {
        Step::AddBefore(at, item) => {
            let index = at % (count + 1);
            let added = add_item(page, item, AddItem::IndexBefore(index as u16 + 1));
            // Space that Free left is not seen before the next repair.
            if added == Ok(index as u16 + 1) {
                model.0.insert(index, Some(item.clone()));
            } else {
                assert!(matches!(added, Err(Fault::NoSpace { .. })), "{added:?}");
            }
        }
        Step::AddToFree(item) => {
            let free = model.0.iter().position(Option::is_none).unwrap_or(count);
            match add_item(page, item, AddItem::IndexAt(free as u16 + 1)) {
                Ok(offset) => {
                    assert_eq!(usize::from(offset), free + 1);
                    model.0.resize(count.max(free + 1), None);
                    model.0[free] = Some(item.clone());
                }
                Err(fault) => assert!(matches!(fault, Fault::NoSpace { .. }), "{fault}"),
            }
        }
        Step::Delete(at) if is_dense(model) => {
            index_tuple_delete(page, (at % count) as u16 + 1).unwrap();
            model.0.remove(at % count);
        }
        Step::DeleteNoCompact(at) if count > 0 && model.0[at % count].is_some() => {
            let index = at % count;
            index_tuple_delete_no_compact(page, index as u16 + 1).unwrap();
            model.0[index] = None;
            if index + 1 == count {
                model.0.pop();
            }
        }
        Step::DeleteMany(which) if is_dense(model) => {
            let mut offsets: Vec<u16> = which.iter().map(|at| (at % count) as u16 + 1).collect();
            offsets.sort_unstable();
            offsets.dedup();
            index_multi_delete(page, offsets.iter().copied()).unwrap();
            offsets.iter().rev().for_each(|&offset| {
                model.0.remove(usize::from(offset) - 1);
            });
        }
        Step::Overwrite(at, item) if count > 0 && model.0[at % count].is_some() => {
            let index = at % count;
            match index_tuple_overwrite(page, index as u16 + 1, item) {
                Ok(()) => model.0[index] = Some(item.clone()),
                Err(fault) => assert!(matches!(fault, Fault::NoSpace { .. }), "{fault}"),
            }
        }
        Step::Free(which) if count > 0 => {
            for index in which.iter().map(|at| at % count) {
                set_line(page, index as u16 + 1, LinePointer::UNUSED).unwrap();
                model.0[index] = None;
            }
            // Index functions count on a page without gaps; only repair may follow.
            repair_fragmentation(page).unwrap();
            model.drop_unused_tail(0);
        }
        Step::Repair => {
            repair_fragmentation(page).unwrap();
            model.drop_unused_tail(0);
            let free = usize::from(upper(page)) - usize::from(lower(page));
            assert_eq!(free, model.free(), "repair leaves no gap");
        }
        Step::Truncate => {
            truncate_line_pointers(page);
            model.drop_unused_tail(1);
        }
        _ => {}
    }
}

fn check(page: &Page, model: &Model) {
    let pointers = aligned_pointers(page).expect("the page stays sound");
    assert_eq!(pointers.special, BLOCK_BYTES - SPECIAL_BYTES);
    assert_eq!(usize::from(item_count(page)), model.0.len());
    let mut spans = Vec::new();
    for (offset, item) in (1..).zip(&model.0) {
        match item {
            Some(item) => {
                let span = stored_item(page, offset).expect("an item");
                assert_eq!(&page[span.range()], &item[..], "item {offset}");
                spans.push((span.at, span.at + align(span.length)));
            }
            None => assert_eq!(line(page, offset), Ok(LinePointer::UNUSED), "line pointer {offset}"),
        }
    }
    spans.sort_unstable();
    assert!(spans.first().is_none_or(|first| first.0 >= pointers.upper));
    assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0), "no two items overlap");
    assert!(page[pointers.special..].iter().all(|&byte| byte == 0x77), "the special space is untouched");
}

proptest! {
    #[test]
    fn primitives_agree_with_a_list_of_items(steps in proptest::collection::vec(step(), 1..60)) {
        let mut page = [0; BLOCK_BYTES];
        init(&mut page, SPECIAL_BYTES);
        page[BLOCK_BYTES - SPECIAL_BYTES..].fill(0x77);
        let mut model = Model::default();
        for step in &steps {
            perform(step, &mut page, &mut model);
            check(&page, &model);
        }
    }

    /// Nothing panics on a page of any bytes, with headers that are nearly right.
    #[test]
    fn primitives_refuse_or_do_on_any_page(
        header in proptest::collection::vec(any::<u16>(), 3),
        lines in proptest::collection::vec(any::<u32>(), 0..420),
        offset in 0u16..430,
        bytes in 0usize..9000,
        function in 0u8..8,
    ) {
        let mut page = [0x33; BLOCK_BYTES];
        for (at, value) in [12, 14, 16].into_iter().zip(header) {
            set_u16_at(&mut page, at, value % 8300);
        }
        if lines.len() % 2 == 0 {
            set_u16_at(&mut page, 12, (HEADER_BYTES + 4 * lines.len()) as u16);
            set_u16_at(&mut page, 14, (HEADER_BYTES + 4 * lines.len()) as u16);
            set_u16_at(&mut page, 16, 8192);
        }
        for (at, line) in (HEADER_BYTES..).step_by(4).zip(&lines) {
            let tame = LinePointer((line & 0x01ff_ffff) % 0x0400_0000).with_at((LinePointer(*line).at() % 8192) & !7);
            set_u32_at(&mut page, at, if line % 3 == 0 { *line } else { tame.0 });
        }
        let item = vec![1; bytes];
        match function {
            0 => { let _ = add_item(&mut page, &item, AddItem::HeapAt(offset)); }
            1 => { let _ = add_item(&mut page, &item, AddItem::IndexBefore(offset)); }
            2 => { let _ = add_item(&mut page, &item, AddItem::IndexAt(offset)); }
            3 => { let _ = repair_fragmentation(&mut page); }
            4 => truncate_line_pointers(&mut page),
            5 => { let _ = index_tuple_delete(&mut page, offset); }
            6 => { let _ = index_multi_delete(&mut page, offset..offset.saturating_add(5)); }
            _ => { let _ = index_tuple_overwrite(&mut page, offset, &item); }
        }
    }
}
