//! What rustc makes of Rust: generics, traits and their tables, closures, iterators, panics that are caught, drops on the way.
//! Every function is reached from main(), which prints one line.
use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display};
use std::panic;
use std::sync::{mpsc, Arc, Mutex};
use std::thread;

trait Shape {
    fn area(&self) -> f64;
    fn name(&self) -> String {
        String::from("shape")
    }
}

struct Square(f64);
struct Circle {
    radius: f64,
}

impl Shape for Square {
    fn area(&self) -> f64 {
        self.0 * self.0
    }
}

impl Shape for Circle {
    fn area(&self) -> f64 {
        3.14159 * self.radius * self.radius
    }
    fn name(&self) -> String {
        format!("circle of {}", self.radius)
    }
}

struct Noisy<'a>(&'a Mutex<u32>);

impl Drop for Noisy<'_> {
    fn drop(&mut self) {
        if let Ok(mut count) = self.0.lock() {
            *count += 1;
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Number(i64),
    Plus,
    Times,
    Open,
    Close,
}

#[derive(Debug)]
struct Broken {
    at: usize,
}

impl Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "broken at {}", self.at)
    }
}

#[inline(never)]
fn tokens(text: &str) -> Result<Vec<Token>, Broken> {
    let mut found = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'0'..=b'9' => {
                let mut number = 0i64;
                while at < bytes.len() && bytes[at].is_ascii_digit() {
                    number = number * 10 + i64::from(bytes[at] - b'0');
                    at += 1;
                }
                found.push(Token::Number(number));
                continue;
            }
            b'+' => found.push(Token::Plus),
            b'*' => found.push(Token::Times),
            b'(' => found.push(Token::Open),
            b')' => found.push(Token::Close),
            b' ' => {}
            _ => return Err(Broken { at }),
        }
        at += 1;
    }
    Ok(found)
}

#[inline(never)]
fn evaluate(tokens: &[Token], at: &mut usize, binding: u8) -> i64 {
    let mut value = match tokens.get(*at) {
        Some(Token::Number(number)) => *number,
        Some(Token::Open) => {
            *at += 1;
            evaluate(tokens, at, 0)
        }
        _ => panic!("no value at {at}"),
    };
    *at += 1;
    loop {
        let power = match tokens.get(*at) {
            Some(Token::Plus) => 1,
            Some(Token::Times) => 2,
            _ => return value,
        };
        if power <= binding {
            return value;
        }
        *at += 1;
        let right = evaluate(tokens, at, power);
        value = if power == 1 { value + right } else { value * right };
    }
}

#[inline(never)]
fn greet<T: Display>(what: T) -> String {
    format!("hello {what}")
}

#[inline(never)]
fn panics_when(value: u32, count: &Mutex<u32>) -> u32 {
    let _noisy = Noisy(count);
    if value % 3 == 0 {
        panic!("divisible: {value}");
    }
    value * 2
}

#[inline(never)]
fn catches(value: u32, count: &Mutex<u32>) -> u32 {
    panic::catch_unwind(panic::AssertUnwindSafe(|| panics_when(value, count))).unwrap_or(1)
}

#[inline(never)]
fn parallel(parts: u64) -> u64 {
    let (sender, receiver) = mpsc::channel();
    let total = Arc::new(Mutex::new(0u64));
    let workers: Vec<_> = (0..parts)
        .map(|part| {
            let (sender, total) = (sender.clone(), Arc::clone(&total));
            thread::spawn(move || {
                *total.lock().unwrap() += part;
                sender.send(part * part).unwrap();
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    drop(sender);
    let squares: u64 = receiver.iter().sum();
    let sum = *total.lock().unwrap();
    squares + sum
}

fn main() {
    panic::set_hook(Box::new(|_| {}));
    let count = Mutex::new(0);
    let shapes: Vec<Box<dyn Shape>> = vec![Box::new(Square(2.0)), Box::new(Circle { radius: 1.5 })];
    let area: f64 = shapes.iter().map(|shape| shape.area()).sum();
    let names: Vec<String> = shapes.iter().map(|shape| shape.name()).collect();
    let caught: u32 = (0..12).map(|value| catches(value, &count)).sum();
    let parsed = tokens("2 * (3 + 4) * 5").map(|found| evaluate(&found, &mut 0, 0));
    let failed = tokens("2 ? 3").map(|found| found.len());
    let mut words: HashMap<&str, usize> = HashMap::new();
    for word in "the quick brown fox jumps over the lazy dog".split(' ') {
        *words.entry(word).or_default() += 1;
    }
    let ordered: BTreeMap<_, _> = words.into_iter().collect();
    println!(
        "{area:.2} {names:?} {caught} {parsed:?} {} {ordered:?} {} {} {} {}",
        failed.unwrap_err(),
        greet(3),
        greet("you"),
        parallel(4),
        count.lock().unwrap()
    );
}
