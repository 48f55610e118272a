;; Takes a while to start, and keeps what it was told then: the time, and a random number.
(component
  (import "capwasm:clock/clock@0.1.0" (instance $clock
    (export "monotonic" (func (result u64)))))
  (import "capwasm:random/random@0.1.0" (instance $random
    (export "next-u64" (func (result u64)))))
  (alias export $clock "monotonic" (func $monotonic))
  (alias export $random "next-u64" (func $next))
  (core func $monotonic' (canon lower (func $monotonic)))
  (core func $next' (canon lower (func $next)))
  (core module $m
    (import "host" "monotonic" (func $monotonic (result i64)))
    (import "host" "next" (func $next (result i64)))
    (global $seed (mut i64) (i64.const 0))
    (global $count (mut i32) (i32.const 0))
    (func $work (export "work") (param $n i32)
      (loop $again
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br_if $again (local.get $n))))
    (func $begin
      (drop (call $monotonic))
      (global.set $seed (call $next))
      (call $work (i32.const 2000000)))
    (start $begin)
    (func (export "seed") (result i64) (global.get $seed))
    (func (export "count") (result i32)
      (global.set $count (i32.add (global.get $count) (i32.const 1)))
      (global.get $count)))
  (core instance $i (instantiate $m (with "host" (instance
    (export "monotonic" (func $monotonic')) (export "next" (func $next'))))))
  (func (export "work") (param "rounds" u32) (canon lift (core func $i "work")))
  (func (export "seed") (result u64) (canon lift (core func $i "seed")))
  (func (export "count") (result u32) (canon lift (core func $i "count"))))
