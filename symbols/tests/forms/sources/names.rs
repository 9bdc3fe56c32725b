use std::collections::HashMap;
use std::fmt;
use std::hint::black_box;

pub struct Square<T>(T);

pub trait Area {
    fn area(&self) -> u32;
    #[inline(never)]
    fn twice(&self) -> u32 {
        black_box(self.area()) * 2
    }
}

impl Area for Square<u32> {
    #[inline(never)]
    fn area(&self) -> u32 {
        black_box(self.0) * 2
    }
}

impl Area for [u8] {
    #[inline(never)]
    fn area(&self) -> u32 {
        black_box(self.len() as u32)
    }
}

impl<T: fmt::Display> Square<T> {
    #[inline(never)]
    pub fn show(&self) -> String {
        let text = |n: usize| format!("{}{n}", self.0);
        text(black_box(3))
    }
}

impl fmt::Display for Square<u32> {
    #[inline(never)]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 > 3 { "big" } else { "small" })
    }
}

pub mod deep {
    pub mod down {
        #[inline(never)]
        pub fn pair<A: Copy, B: Copy>(a: A, b: B) -> (B, A) {
            std::hint::black_box((b, a))
        }
    }
}

pub struct Guard(u32);

impl Drop for Guard {
    #[inline(never)]
    fn drop(&mut self) {
        black_box(self.0);
    }
}

#[inline(never)]
fn apply(f: &dyn Fn(u32) -> u32) -> u32 {
    f(black_box(2))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn plain_c(n: u32) -> u32 {
    black_box(n) + 1
}

fn main() {
    let guard = Guard(7);
    let s = Square(4u32);
    let offset = std::env::args().count() as u32;
    let n = apply(black_box(&|x| black_box(x) + offset));
    println!("{} {} {} {s} {n} {}", s.area(), s.twice(), s.show(), Square('c').show());
    println!("{:?} {:?}", deep::down::pair(1u8, 2u32), deep::down::pair('a', "b"));
    println!("{} {}", [1u8, 2][..].area(), plain_c(guard.0));
    let mut map: HashMap<String, u32> = black_box(HashMap::new());
    map.insert(std::env::args().collect(), n);
    println!("{}", black_box(map).len());
}
