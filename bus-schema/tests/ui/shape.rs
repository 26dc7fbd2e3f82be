//! Types that have no description: nobody could read it.

use bus_schema::Describe;

#[derive(Describe)]
struct Generic<T> {
    value: T,
}

#[derive(Describe)]
struct Tuple(u32, u32);

#[derive(Describe)]
enum Pair {
    Of(u32, u32),
}

#[derive(Describe)]
struct Tree {
    children: Vec<Tree>,
}

#[derive(Describe)]
struct Raw {
    bytes: Vec<u8>,
}

fn main() {}
