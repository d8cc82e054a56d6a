// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// The programs that run at a probe site, and the three that follow processes.
//
// A call is identified between its entry and its return by where its frame lies: (collector, process, stack pointer), or in
// Go, whose stacks move, by (collector, process, goroutine, depth in its stack). An entry at an occupied key proves that
// the older call never returned.
//
// Uprobe programs can be preempted (the kernel only disables migration), so every counter is added atomically, and nothing
// is kept in per-CPU memory. They are sleepable, because a page of the probed program may have to be faulted in.
//
// No vmlinux.h: registers have the layout that the ptrace ABI fixes (arch/x86/include/uapi/asm/ptrace.h), and the few kernel
// fields that the process programs read are relocated against the running kernel's BTF.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define RELOCATED __attribute__((preserve_access_index))
#define MAP_UINT(name, value) int (*name)[value]
#define MAP_TYPE(name, value) value *name

// Helper numbers: include/uapi/linux/bpf.h, ___BPF_FUNC_MAPPER.
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*bpf_probe_read_user)(void *to, u32 size, const void *from) = (void *)112;
static u64 (*bpf_ktime_get_boot_ns)(void) = (void *)125;
static void *(*bpf_ringbuf_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *record, u64 flags) = (void *)132;
static long (*bpf_copy_from_user)(void *to, u32 size, const void *from) = (void *)148;
static u64 (*bpf_get_attach_cookie)(void *context) = (void *)174;
static long (*bpf_loop)(u32 count, void *each, void *context, u64 flags) = (void *)181;

enum { MAP_HASH = 1, MAP_ARRAY = 2, MAP_RINGBUF = 27 };
enum { UPDATE_ANY = 0, UPDATE_NOEXIST = 1 };
enum { EXISTS = -17, BUSY = -16 };
enum { MAX_SLOTS = 64 };

struct registers {
	u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

// The cookie of a site says everything that the program must know of it; kernel/cookie.py composes it.
enum {
	COOKIE_SLOT_MASK = 0xff,
	COOKIE_TAIL = 1 << 8, // the exit is a jump to another function
	COOKIE_GO = 1 << 9, // pair by goroutine and depth
	COOKIE_UNSEEN = 1 << 10, // returns are not seen: an entry is all there is
	COOKIE_CONDITIONAL = 1 << 11, // the jump is taken only if the condition holds
	COOKIE_CONDITION_SHIFT = 12, // x86 condition code, 4 bits
	COOKIE_GOID_SHIFT = 16, // where a goroutine has its number, in words of 64 bits, 8 bits; 0 when that is not known
	COOKIE_SITE_SHIFT = 32, // index of the site, 16 bits
	COOKIE_GROUP_SHIFT = 48, // the image that the site belongs to, 16 bits
};

enum { KIND_RETURN = 0, KIND_TAIL = 1, KIND_ENTRY = 2 };

// What one collector wants; written by the agent. Zero means no bound.
struct slot {
	u64 min_ns, max_ns; // durations outside are filtered
	u64 interval_ns, burst_ns; // rate limit: one event per interval, this much ahead of it
	u64 max_events;
	u32 sample_rate; // every Nth call
	u32 flags;
};

enum {
	SLOT_COUNT_ONLY = 1, // no events
	SLOT_CLOSING = 2, // its entry sites are being detached
	SLOT_HELD = 4, // who reads its events is behind: none are made
};

struct counters {
	u64 entered, returned, no_return, too_deep, emitted, filtered, sampled_out, rate_limited, ring_lost, orphan_returns, unseen;
	u64 completed; // calls that sampling has looked at
	u64 admitted; // calls that max_events has looked at
	u64 arrival_ns; // theoretical arrival time of the rate limit (GCRA, ITU-T I.371)
};

struct call_key {
	u64 place; // the stack pointer, or the goroutine
	u64 depth; // 0, or how deep in the goroutine's stack
	u32 slot, instance;
};

struct call {
	u64 boot_ns;
	u64 goid; // goroutines that ended are used again for others; 0 when it is not known
	u32 pid, tid;
};

struct member_key {
	u32 slot, pid;
};

struct member {
	u32 instance;
	u32 group; // the image in which its calls count
};

struct state { // written by the programs alone
	u64 control_lost; // control records that found their ring full
	u64 members_lost; // forked children that found the table of members full
	u32 next_instance; // of forked children; the agent numbers its own below 2^31
	u32 pad;
};

struct record { // events/record.py: RECORD
	u64 boot_ns, duration_ns;
	u32 slot, instance, pid, tid;
	u16 site;
	u8 kind;
	u8 pad[5];
};

enum { CONTROL_FORK = 1, CONTROL_EXEC = 2, CONTROL_EXIT = 3 };

struct control { // kernel/control.py: CONTROL
	u64 boot_ns;
	u64 start_boot_ns; // of the child, for a fork
	u32 kind, slot, instance, pid, parent, status;
	u64 clone_flags;
};

struct {
	MAP_UINT(type, MAP_ARRAY);
	MAP_UINT(max_entries, MAX_SLOTS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct slot);
} slots SEC(".maps");

struct {
	MAP_UINT(type, MAP_ARRAY);
	MAP_UINT(max_entries, MAX_SLOTS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct counters);
} counters SEC(".maps");

struct {
	MAP_UINT(type, MAP_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct state);
} state SEC(".maps");

struct { // written by the agent alone: a bit per slot that is in use
	MAP_UINT(type, MAP_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
} active SEC(".maps");

struct {
	MAP_UINT(type, MAP_HASH);
	MAP_UINT(max_entries, 131072);
	MAP_TYPE(key, struct call_key);
	MAP_TYPE(value, struct call);
} calls SEC(".maps");

struct {
	MAP_UINT(type, MAP_HASH);
	MAP_UINT(max_entries, 65536);
	MAP_TYPE(key, struct member_key);
	MAP_TYPE(value, struct member);
} members SEC(".maps");

struct {
	MAP_UINT(type, MAP_RINGBUF);
	MAP_UINT(max_entries, 16 << 20);
} events SEC(".maps");

struct {
	MAP_UINT(type, MAP_RINGBUF);
	MAP_UINT(max_entries, 1 << 20);
} control SEC(".maps");

// A type that is only pointed to is left out of the object's BTF, against which the tests hold Python's layouts.
const struct record *record_layout __attribute__((unused));
const struct control *control_layout __attribute__((unused));

#define ADD(counter) __sync_fetch_and_add(&(counter), 1)

INLINE int read_user(void *to, u32 size, const void *from)
{
	// The first attempt never sleeps and is the common case; the second faults the page in.
	if (!bpf_probe_read_user(to, size, from))
		return 0;
	return bpf_copy_from_user(to, size, from) != 0;
}

// Whether a conditional jump is taken: Intel SDM volume 1, appendix B (EFLAGS condition codes).
INLINE int taken(u64 flags, u32 condition)
{
	u64 carry = flags & 1, parity = flags >> 2 & 1, zero = flags >> 6 & 1, sign = flags >> 7 & 1, overflow = flags >> 11 & 1;
	u64 holds;
	switch (condition >> 1 & 7) {
	case 0: holds = overflow; break;
	case 1: holds = carry; break;
	case 2: holds = zero; break;
	case 3: holds = carry | zero; break;
	case 4: holds = sign; break;
	case 5: holds = parity; break;
	case 6: holds = sign ^ overflow; break;
	default: holds = zero | (sign ^ overflow); break;
	}
	return holds != (condition & 1);
}

INLINE int locate(struct call_key *key, struct registers *registers, u64 cookie, u32 slot, u32 instance)
{
	key->slot = slot;
	key->instance = instance;
	if (!(cookie & COOKIE_GO)) {
		key->place = registers->sp;
		key->depth = 0;
		return 0;
	}
	// r14 holds the goroutine in Go's ABIInternal; its stack.hi is the second word of runtime.g.
	u64 stack_high = 0;
	if (read_user(&stack_high, sizeof stack_high, (void *)(registers->r14 + 8)))
		return 1;
	key->place = registers->r14;
	key->depth = stack_high - registers->sp;
	return 0;
}

// Passes one finished call (or, where returns are not seen, one entry) through the filters and into the ring. Exactly one
// of the counters emitted, filtered, sampled_out, rate_limited and ring_lost goes up.
INLINE void report(struct counters *count, u64 cookie, u32 slot, u32 instance, u64 pid_tgid, u64 now, u64 duration, u8 kind)
{
	struct slot *want = bpf_map_lookup_elem(&slots, &slot);
	if (!want || want->flags & SLOT_COUNT_ONLY || duration < want->min_ns || (want->max_ns && duration > want->max_ns)) {
		ADD(count->filtered);
		return;
	}
	if (want->sample_rate > 1 && ADD(count->completed) % want->sample_rate) {
		ADD(count->sampled_out);
		return;
	}
	if (want->flags & SLOT_HELD) {
		ADD(count->rate_limited);
		return;
	}
	if (want->interval_ns) {
		int admitted = 0;
		for (int attempt = 0; attempt < 8 && !admitted; attempt++) {
			u64 seen = *(volatile u64 *)&count->arrival_ns, arrival = seen < now ? now : seen;
			if (arrival - now > want->burst_ns)
				break;
			admitted = __sync_val_compare_and_swap(&count->arrival_ns, seen, arrival + want->interval_ns) == seen;
		}
		if (!admitted) {
			ADD(count->rate_limited);
			return;
		}
	}
	if (want->max_events && ADD(count->admitted) >= want->max_events) {
		ADD(count->filtered);
		return;
	}
	struct record *record = bpf_ringbuf_reserve(&events, sizeof *record, 0);
	if (!record) {
		ADD(count->ring_lost);
		return;
	}
	record->boot_ns = now;
	record->duration_ns = duration;
	record->slot = slot;
	record->instance = instance;
	record->pid = pid_tgid >> 32;
	record->tid = (u32)pid_tgid;
	record->site = cookie >> COOKIE_SITE_SHIFT;
	record->kind = kind;
	__builtin_memset(record->pad, 0, sizeof record->pad);
	// Counted before it can be read, so that no reader ever holds more events than were counted.
	ADD(count->emitted);
	bpf_ringbuf_submit(record, 0);
}

// The process that is at a site, if its calls count there. Files that are two for their readers may be one for the kernel's
// probes (overlay mounts that share a layer), and one process would then be at two sites at once.
INLINE struct member *member_at(u64 cookie, u32 slot, u32 pid)
{
	struct member_key who = {slot, pid};
	struct member *member = bpf_map_lookup_elem(&members, &who);
	return member && member->group == cookie >> COOKIE_GROUP_SHIFT ? member : 0;
}

SEC("uprobe")
int on_entry(struct registers *registers)
{
	u64 cookie = bpf_get_attach_cookie(registers), pid_tgid = bpf_get_current_pid_tgid();
	u32 slot = cookie & COOKIE_SLOT_MASK, pid = pid_tgid >> 32;
	struct member *member = member_at(cookie, slot, pid);
	struct counters *count = bpf_map_lookup_elem(&counters, &slot);
	if (!member || !count)
		return 0;
	ADD(count->entered);
	if (cookie & COOKIE_UNSEEN) {
		ADD(count->unseen);
		struct slot *want = bpf_map_lookup_elem(&slots, &slot);
		if (want && want->flags & SLOT_COUNT_ONLY) { // no event, so no time either
			ADD(count->filtered);
			return 0;
		}
		report(count, cookie, slot, member->instance, pid_tgid, bpf_ktime_get_boot_ns(), 0, KIND_ENTRY);
		return 0;
	}
	struct call_key key = {};
	if (locate(&key, registers, cookie, slot, member->instance)) {
		ADD(count->too_deep); // no goroutine, no place to track it by
		return 0;
	}
	struct call call = {.pid = pid, .tid = (u32)pid_tgid};
	u64 goid_at = (cookie >> COOKIE_GOID_SHIFT & 0xff) * sizeof(u64);
	if (cookie & COOKIE_GO && goid_at && read_user(&call.goid, sizeof call.goid, (void *)(registers->r14 + goid_at)))
		call.goid = 0;
	call.boot_ns = bpf_ktime_get_boot_ns();
	long result = bpf_map_update_elem(&calls, &key, &call, UPDATE_NOEXIST);
	if (result == EXISTS) {
		ADD(count->no_return);
		result = bpf_map_update_elem(&calls, &key, &call, UPDATE_ANY);
	}
	for (int attempt = 0; attempt < 4 && result == BUSY; attempt++)
		result = bpf_map_update_elem(&calls, &key, &call, UPDATE_ANY);
	if (result)
		ADD(count->too_deep);
	return 0;
}

SEC("uprobe")
int on_exit(struct registers *registers)
{
	u64 now = bpf_ktime_get_boot_ns(); // first, so that what follows is not part of the duration
	u64 cookie = bpf_get_attach_cookie(registers), pid_tgid = bpf_get_current_pid_tgid();
	if (cookie & COOKIE_CONDITIONAL && !taken(registers->flags, cookie >> COOKIE_CONDITION_SHIFT & 15))
		return 0;
	u32 slot = cookie & COOKIE_SLOT_MASK, pid = pid_tgid >> 32;
	struct member *member = member_at(cookie, slot, pid);
	struct counters *count = bpf_map_lookup_elem(&counters, &slot);
	if (!member || !count)
		return 0;
	struct call_key key = {};
	struct call *call = 0;
	if (!locate(&key, registers, cookie, slot, member->instance))
		call = bpf_map_lookup_elem(&calls, &key);
	if (!call) {
		// Between the detach of the entries and that of the exits, calls go by that are none of the probe's.
		struct slot *want = bpf_map_lookup_elem(&slots, &slot);
		if (want && !(want->flags & SLOT_CLOSING))
			ADD(count->orphan_returns);
		return 0;
	}
	u64 duration = now > call->boot_ns ? now - call->boot_ns : 1;
	bpf_map_delete_elem(&calls, &key);
	ADD(count->returned);
	report(count, cookie, slot, member->instance, pid_tgid, now, duration, cookie & COOKIE_TAIL ? KIND_TAIL : KIND_RETURN);
	return 0;
}

// Keeps a breakpoint where it is, and does nothing.
SEC("uprobe")
int on_guard(struct registers *registers)
{
	(void)registers;
	return 0;
}

// ---- Which processes are members: children of members are, from before their first instruction. ----

struct atomic {
	int counter;
} RELOCATED;
struct signal_struct {
	struct atomic live;
	int group_exit_code;
} RELOCATED;
struct task_struct {
	int pid, tgid, exit_code;
	u64 start_boottime;
	struct signal_struct *signal;
} RELOCATED;

enum { CLONE_THREAD = 0x10000 };

INLINE void tell(struct state *shared, u32 kind, u32 slot, u32 instance, u32 pid, u32 parent, u32 status, u64 start, u64 flags)
{
	struct control *record = bpf_ringbuf_reserve(&control, sizeof *record, 0);
	if (!record) {
		ADD(shared->control_lost);
		return;
	}
	record->boot_ns = bpf_ktime_get_boot_ns();
	record->start_boot_ns = start;
	record->kind = kind;
	record->slot = slot;
	record->instance = instance;
	record->pid = pid;
	record->parent = parent;
	record->status = status;
	record->clone_flags = flags;
	bpf_ringbuf_submit(record, 0);
}

INLINE u64 active_slots(void)
{
	u32 zero = 0;
	u64 *slots = bpf_map_lookup_elem(&active, &zero);
	return slots ? *slots : 0;
}

struct fork {
	struct state *shared;
	u64 active, start, flags;
	u32 pid, parent;
};

static long inherit(u64 index, struct fork *fork)
{
	u32 slot = index;
	if (slot >= MAX_SLOTS || !(fork->active >> slot & 1))
		return 0;
	struct member_key from = {slot, fork->parent}, to = {slot, fork->pid};
	struct member *parent = bpf_map_lookup_elem(&members, &from);
	if (!parent)
		return 0;
	struct member member = {1u << 31 | __sync_fetch_and_add(&fork->shared->next_instance, 1), parent->group};
	if (bpf_map_update_elem(&members, &to, &member, UPDATE_ANY)) {
		ADD(fork->shared->members_lost);
		return 0;
	}
	tell(fork->shared, CONTROL_FORK, slot, member.instance, fork->pid, fork->parent, 0, fork->start, fork->flags);
	return 0;
}

// Runs in the parent, before the child does (kernel/fork.c: copy_process).
SEC("tp_btf/task_newtask")
int on_fork(u64 *arguments)
{
	struct task_struct *child = (void *)arguments[0];
	u64 flags = arguments[1];
	u32 zero = 0;
	struct state *shared = bpf_map_lookup_elem(&state, &zero);
	u64 active = active_slots();
	if (!shared || flags & CLONE_THREAD || !active)
		return 0;
	struct fork fork = {shared, active, child->start_boottime, flags, child->tgid, bpf_get_current_pid_tgid() >> 32};
	bpf_loop(MAX_SLOTS, inherit, &fork, 0);
	return 0;
}

struct departure {
	u64 active;
	u32 pid, left;
};

static long leave(u64 index, struct departure *departure)
{
	struct member_key who = {index, departure->pid};
	if (index < MAX_SLOTS && departure->active >> index & 1 && !bpf_map_delete_elem(&members, &who))
		departure->left++;
	return 0;
}

// A program that execs is let go: what runs now may be another one. The agent looks at it anew.
SEC("tp_btf/sched_process_exec")
int on_exec(u64 *arguments)
{
	struct task_struct *task = (void *)arguments[0];
	u32 zero = 0;
	struct state *shared = bpf_map_lookup_elem(&state, &zero);
	if (!shared)
		return 0;
	struct departure departure = {active_slots(), task->tgid, 0};
	if (departure.active)
		bpf_loop(MAX_SLOTS, leave, &departure, 0);
	tell(shared, CONTROL_EXEC, 0, 0, departure.pid, 0, 0, 0, 0);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int on_process_exit(u64 *arguments)
{
	struct task_struct *task = (void *)arguments[0];
	u32 zero = 0;
	struct state *shared = bpf_map_lookup_elem(&state, &zero);
	u64 active = active_slots();
	if (!shared || !active)
		return 0;
	// do_exit() has already taken this thread out of signal->live, so the last one finds 0.
	struct signal_struct *signal = task->signal;
	if (signal->live.counter)
		return 0;
	struct departure departure = {active, task->tgid, 0};
	int status = signal->group_exit_code;
	if (!status)
		status = task->exit_code;
	bpf_loop(MAX_SLOTS, leave, &departure, 0);
	if (departure.left)
		tell(shared, CONTROL_EXIT, 0, 0, departure.pid, 0, status, 0, 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
