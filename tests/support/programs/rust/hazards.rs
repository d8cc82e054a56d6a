//! Every way in which a Rust function is left: it returns, a panic passes through it and is caught further up or ends the
//! thread, its future is polled again and again by different threads. Each function's own calls and returns are counted;
//! `--rounds N` says how often everything is done. The protocol is that of ../c/truth.h.
//!
//! All of it happens in threads that have ended when the counters are printed, so that what has not returned never will.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::io::{BufRead, Write};
use std::panic::{catch_unwind, panic_any, resume_unwind, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

macro_rules! counters {
    ($($name:ident),*) => {
        #[allow(non_camel_case_types, dead_code)]
        #[derive(Clone, Copy)]
        enum Id { $($name),* }
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

counters!(through, catches, resumes, drops, glues, matches, tails, lasts, generics, closures, traits, dynamic, polls, inner_polls,
          ends, aborts, bounds, overflows, locked, large, results);

#[allow(clippy::declare_interior_mutable_const)]
const ZERO: AtomicI64 = AtomicI64::new(0);
static ENTERED: [AtomicI64; NAMES.len()] = [ZERO; NAMES.len()];
static RETURNED: [AtomicI64; NAMES.len()] = [ZERO; NAMES.len()];
static CHECKSUM: AtomicI64 = AtomicI64::new(0);
static WRONG: AtomicI64 = AtomicI64::new(0);

/// A value of which the compiler knows nothing; std's is younger than the compilers that build this.
#[inline(always)]
fn black_box<T>(value: T) -> T {
    // SAFETY: it does nothing.
    unsafe { std::arch::asm!("/* {0} */", in(reg) &value, options(nostack, preserves_flags)) };
    value
}

/// Counts a call before and after it.
macro_rules! call {
    ($id:ident, $call:expr) => {{
        ENTERED[Id::$id as usize].fetch_add(1, Relaxed);
        let value = $call;
        RETURNED[Id::$id as usize].fetch_add(1, Relaxed);
        value
    }};
}

fn add(value: i64) {
    CHECKSUM.fetch_add(value, Relaxed);
}

// ---- Panics ----

#[inline(never)]
fn dropped(x: i64) -> i64 {
    black_box(x) + 1
}

struct Guard(i64);

impl Drop for Guard {
    #[inline(never)]
    fn drop(&mut self) {
        add(call!(drops, dropped(self.0)));
    }
}

#[inline(never)]
fn panics_through(depth: i64, x: i64) -> i64 {
    let guard = Guard(x);
    if depth == 0 {
        if x % 4 == 3 {
            panic_any(x);
        }
        return black_box(x);
    }
    let value = call!(through, panics_through(depth - 1, x));
    black_box(&guard).0 + value
}

/// Returns from where a panic was caught, too.
#[inline(never)]
fn catches_and_returns(x: i64) -> i64 {
    let found = catch_unwind(|| {
        let _guard = Guard(x);
        if x % 3 == 0 {
            panic_any(x);
        }
        black_box(x)
    });
    match found {
        Ok(value) => value + 1,
        Err(payload) => *payload.downcast::<i64>().unwrap() * 2,
    }
}

#[inline(never)]
fn resumes_with_another(x: i64) -> i64 {
    match catch_unwind(|| if x % 2 == 1 { panic!("odd") } else { black_box(x) }) {
        Ok(value) => value,
        Err(_) if x % 4 == 1 => resume_unwind(Box::new(x)),
        Err(_) => -x,
    }
}

#[inline(never)]
fn out_of_bounds(x: usize, values: &[i64]) -> i64 {
    values[black_box(x)]
}

#[inline(never)]
fn overflows_sometimes(x: i64) -> i64 {
    let divisor = black_box(x % 5);
    100 / divisor
}

#[inline(never)]
fn while_locked(mutex: &Mutex<i64>, x: i64) -> i64 {
    let mut guard = mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    *guard += 1;
    if x % 6 == 5 {
        panic_any(x);
    }
    *guard
}

#[inline(never)]
fn large_frame(x: i64) -> i64 {
    let mut values = [0i64; 4096];
    values[(x % 4096) as usize] = x;
    black_box(&mut values);
    if x % 7 == 6 {
        panic_any(values[(x % 4096) as usize]);
    }
    values[(x % 4096) as usize]
}

#[inline(never)]
fn parses(text: &str) -> Result<i64, Box<dyn std::error::Error>> {
    let value: i64 = text.parse()?;
    Ok(black_box(value))
}

// ---- Drop glue, tables, tail calls, generics ----

struct Pair {
    _first: Guard,
    _second: Guard,
    name: String,
}

#[inline(never)]
fn lets_go(pair: Pair) -> i64 {
    black_box(pair.name.len() as i64)
}

#[inline(never)]
fn matches_many(x: i64) -> i64 {
    let y = black_box(x);
    match x % 11 {
        0 => panic_any(y),
        1 => y * 3,
        2 => y ^ 0x55,
        3 => dropped_twice(y),
        4 => -y,
        5 => y << 2,
        6 => call!(results, parses("6")).unwrap() + y,
        7 => y.rotate_left(3),
        8 => y + 1000,
        9 => y / 3,
        _ => 1,
    }
}

#[inline(never)]
fn dropped_twice(x: i64) -> i64 {
    black_box(x) * 2
}

#[inline(never)]
fn last_of_all(x: i64, y: i64) -> i64 {
    black_box(x).wrapping_mul(y)
}

#[inline(never)]
fn ends_in_a_call(x: i64, y: i64) -> i64 {
    if x % 2 == 0 {
        return black_box(y);
    }
    ENTERED[Id::lasts as usize].fetch_add(1, Relaxed);
    RETURNED[Id::lasts as usize].fetch_add(1, Relaxed);
    last_of_all(y, x)
}

trait Shape {
    fn area(&self, x: i64) -> i64;
}

struct Square(i64);
struct Circle(i64);

impl Shape for Square {
    #[inline(never)]
    fn area(&self, x: i64) -> i64 {
        black_box(self.0) * x
    }
}

impl Shape for Circle {
    #[inline(never)]
    fn area(&self, x: i64) -> i64 {
        if x % 8 == 7 {
            panic_any(self.0);
        }
        black_box(self.0) * x * 3
    }
}

#[inline(never)]
fn larger_of<T: PartialOrd + Copy>(one: T, other: T) -> T {
    if black_box(one) > other {
        one
    } else {
        other
    }
}

#[inline(never)]
fn applies(function: &dyn Fn(i64) -> i64, x: i64) -> i64 {
    function(black_box(x)) + 1
}

// ---- A future, polled by one thread after another ----

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

struct Turns(i64);

impl Future for Turns {
    type Output = i64;

    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<i64> {
        call!(inner_polls, {
            self.0 -= 1;
        });
        if black_box(self.0) > 0 {
            Poll::Pending
        } else {
            Poll::Ready(7)
        }
    }
}

async fn adds_up(x: i64) -> i64 {
    let guard = Guard(x);
    let first = Turns(x % 3 + 1).await;
    if x % 5 == 4 {
        panic_any(first);
    }
    first + Turns(2).await + guard.0
}

#[inline(never)]
fn polls_once(future: Pin<&mut (dyn Future<Output = i64> + Send)>) -> Poll<i64> {
    let waker: Waker = Arc::new(Nobody).into();
    future.poll(&mut Context::from_waker(&waker))
}

// ---- What the threads do ----

fn caught(work: impl FnOnce() -> i64) {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(value) => add(value),
        Err(payload) => add(payload.downcast_ref::<i64>().copied().unwrap_or(1)),
    }
}

fn in_thread(work: impl FnOnce() + Send + 'static) -> Result<(), Box<dyn Any + Send>> {
    thread::spawn(work).join()
}

fn panics(rounds: i64) {
    let mutex = Mutex::new(0);
    for i in 0..rounds {
        caught(|| call!(through, panics_through(i % 6, i)));
        caught(|| call!(catches, catches_and_returns(i)));
        caught(|| call!(resumes, resumes_with_another(i)));
        caught(|| call!(bounds, out_of_bounds((i % 5) as usize, &[1, 2, 3, 4])));
        caught(|| call!(overflows, overflows_sometimes(i)));
        caught(|| call!(locked, while_locked(&mutex, i)));
        caught(|| call!(large, large_frame(i)));
        caught(|| call!(results, parses(if i % 2 == 0 { "12" } else { "x" })).unwrap_or(-1));
    }
}

fn calls(rounds: i64) {
    let shapes: [Box<dyn Shape>; 2] = [Box::new(Square(3)), Box::new(Circle(2))];
    for i in 0..rounds {
        let pair = Pair { _first: Guard(i), _second: Guard(i + 1), name: i.to_string() };
        caught(|| call!(glues, lets_go(pair)));
        caught(|| call!(matches, matches_many(i)));
        caught(|| call!(tails, ends_in_a_call(i, i + 2)));
        caught(|| call!(generics, larger_of(i, 50)));
        caught(|| call!(generics, larger_of(i as f64, 50.0)) as i64);
        caught(|| call!(generics, larger_of(i as u8, 50)) as i64);
        let base = black_box(i);
        caught(|| call!(closures, applies(&|x| if x % 9 == 8 { panic_any(base) } else { x + base }, i)));
        if i % 2 == 0 {
            caught(|| call!(traits, shapes[0].area(i)));
        } else {
            caught(|| call!(dynamic, shapes[1].area(i)));
        }
    }
}

fn polling(rounds: i64) {
    let futures: Vec<Pin<Box<dyn Future<Output = i64> + Send>>> =
        (0..rounds).map(|x| Box::pin(adds_up(x)) as Pin<Box<dyn Future<Output = i64> + Send>>).collect();
    let waiting = Arc::new(Mutex::new(futures));
    while !waiting.lock().unwrap().is_empty() {
        let shared = waiting.clone();
        let _ = in_thread(move || {
            let mut futures = std::mem::take(&mut *shared.lock().unwrap());
            futures.retain_mut(|future| {
                let mut ended = true;
                caught(|| match call!(polls, polls_once(future.as_mut())) {
                    Poll::Ready(value) => value,
                    Poll::Pending => {
                        ended = false;
                        0
                    }
                });
                !ended
            });
            *shared.lock().unwrap() = futures;
        });
    }
}

#[inline(never)]
fn ends_its_thread(x: i64) -> i64 {
    let _guard = Guard(x);
    if x % 2 == 1 {
        panic_any(x);
    }
    black_box(x)
}

extern "C" {
    fn fork() -> i32;
    fn _exit(status: i32) -> !;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
}

struct PanicsToo(i64);

impl Drop for PanicsToo {
    fn drop(&mut self) {
        if black_box(self.0) % 2 == 1 {
            panic_any(self.0);
        }
    }
}

/// A panic during a panic ends the program, by SIGABRT.
#[inline(never)]
fn must_not_panic(x: i64) -> i64 {
    let guard = PanicsToo(x);
    if black_box(x) % 2 == 1 {
        panic_any(x);
    }
    black_box(&guard).0
}

fn aborts(children: i64) {
    for i in 0..children {
        // SAFETY: the child calls nothing that needs another thread, and ends.
        let status = unsafe {
            let child = fork();
            if child == 0 {
                _exit(must_not_panic(i) as i32);
            }
            let mut status = 0;
            waitpid(child, &mut status, 0);
            status
        };
        ENTERED[Id::aborts as usize].fetch_add(1, Relaxed);
        RETURNED[Id::aborts as usize].fetch_add(1 - i % 2, Relaxed);
        let right = if i % 2 == 1 { status & 0x7f == 6 } else { status == (i as i32) << 8 };
        WRONG.fetch_add(!right as i64, Relaxed);
    }
}

fn options() -> BTreeMap<String, i64> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    words.chunks(2).filter(|pair| pair.len() == 2).map(|pair| (pair[0].clone(), pair[1].parse().unwrap())).collect()
}

fn await_line() {
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line).unwrap_or(0) == 0 {
        std::process::exit(0);
    }
}

fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).unwrap();
}

fn main() {
    let options = options();
    let option = |name: &str, otherwise: i64| options.get(name).copied().unwrap_or(otherwise);
    let rounds = option("--rounds", 200);
    say(&format!("{{\"ready\":true,\"pid\":{}}}", std::process::id()));
    await_line();
    std::panic::set_hook(Box::new(|_| ()));
    if cfg!(panic = "unwind") {
        WRONG.fetch_add(in_thread(move || panics(rounds)).is_err() as i64, Relaxed);
        WRONG.fetch_add(in_thread(move || calls(rounds)).is_err() as i64, Relaxed);
        let several: Vec<_> = (0..3).map(|_| thread::spawn(move || panics(rounds / 4))).collect();
        for one in several {
            WRONG.fetch_add(one.join().is_err() as i64, Relaxed);
        }
        polling(rounds / 2);
        for i in 0..rounds / 4 {
            let ended = in_thread(move || add(call!(ends, ends_its_thread(i))));
            WRONG.fetch_add((ended.is_err() != (i % 2 == 1)) as i64, Relaxed);
        }
    } else {
        WRONG.fetch_add(in_thread(move || add(call!(through, panics_through(5, 4)))).is_err() as i64, Relaxed);
    }
    aborts(option("--children", 4));
    let counts: Vec<String> = (0..NAMES.len())
        .filter(|&id| ENTERED[id].load(Relaxed) > 0)
        .map(|id| format!(",\"{}\":[{},{}]", NAMES[id], ENTERED[id].load(Relaxed), RETURNED[id].load(Relaxed)))
        .collect();
    say(&format!("{{\"checksum\":{},\"wrong\":{}{}}}", CHECKSUM.load(Relaxed), WRONG.load(Relaxed), counts.concat()));
    await_line();
    if option("--abort", 0) != 0 {
        must_not_panic(1);
    }
    std::process::exit(option("--exit", 0) as i32);
}
