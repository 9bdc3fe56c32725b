//! A little warehouse: three threads pack parcels for about two seconds, one in eight is heavy. Worth a look:
//!
//! ```text
//! probe -x demo 'demo::Warehouse::*' '<demo::*' demo::lift -- ./demo
//! ```
//!
//! A correct trace shows 24 blocks of `demo::Warehouse::pack` on three threads, each above one `demo::Warehouse::pick`
//! and one `<demo::Parcel as demo::Weigh>::weigh`; a heavy parcel's `demo::lift` has nearly all of its time.

use std::hint::black_box;
use std::thread::sleep;
use std::time::Duration;

/// Something with a weight.
trait Weigh {
    fn weigh(&self) -> u64;
}

/// Its items weigh so many grams each.
struct Parcel {
    items: Vec<u64>,
}

impl Weigh for Parcel {
    #[inline(never)]
    fn weigh(&self) -> u64 {
        black_box(&self.items).iter().sum()
    }
}

struct Warehouse;

impl Warehouse {
    #[inline(never)]
    fn pack(&self, order: u64) -> u64 {
        let parcel = self.pick(order);
        let grams = black_box(parcel.weigh());
        if grams > 1_000 {
            lift(grams);
        }
        grams
    }

    #[inline(never)]
    fn pick(&self, order: u64) -> Parcel {
        let each = if order % 8 == 4 { 500 } else { 5 };
        Parcel { items: vec![each; black_box(10)] }
    }
}

#[inline(never)]
fn lift(grams: u64) {
    sleep(Duration::from_micros(black_box(grams) * 4));
}

fn main() {
    let grams: u64 = std::thread::scope(|scope| {
        let packers: Vec<_> = (0..3u64).map(|packer| scope.spawn(move || shift(packer))).collect();
        packers.into_iter().map(|p| p.join().unwrap_or(0)).sum()
    });
    println!("{grams} grams packed");
}

/// Eight parcels by one packer.
fn shift(packer: u64) -> u64 {
    let mut grams = 0;
    for i in 0..8 {
        grams += black_box(Warehouse.pack(packer * 8 + i));
        sleep(Duration::from_millis(200 + 20 * packer));
    }
    grams
}
