;; The work of echo.wat and host.wat, as an Extism plugin does it: input and output are blocks in
;; the memory of Extism's kernel, numbers stand in them little-endian.
(module
  (import "extism:host/env" "input_offset" (func $input_offset (result i64)))
  (import "extism:host/env" "input_length" (func $input_length (result i64)))
  (import "extism:host/env" "input_load_u8" (func $input_load_u8 (param i64) (result i32)))
  (import "extism:host/env" "input_load_u64" (func $input_load_u64 (param i64) (result i64)))
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "free" (func $free (param i64)))
  (import "extism:host/env" "length" (func $length (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (import "extism:host/user" "monotonic" (func $monotonic (result i64)))
  (import "extism:host/user" "config" (func $config (param i64) (result i64)))
  (import "extism:host/user" "value" (func $value (param i64) (result i64)))
  (memory (export "memory") 96)

  (func $answer (param $value i32) (result i32) (local $at i64)
    (local.set $at (call $alloc (i64.const 8)))
    (call $store_u64 (local.get $at) (i64.extend_i32_u (local.get $value)))
    (call $output_set (local.get $at) (i64.const 8))
    (i32.const 0))
  (func $argument (result i32) (i32.wrap_i64 (call $input_load_u64 (i64.const 0))))

  ;; Two numbers of 32 bits.
  (func (export "add") (result i32) (local $both i64)
    (local.set $both (call $input_load_u64 (i64.const 0)))
    (call $answer (i32.add (i32.wrap_i64 (local.get $both))
      (i32.wrap_i64 (i64.shr_u (local.get $both) (i64.const 32))))))

  ;; The input block is the output: nothing is copied in the guest.
  (func (export "echo") (result i32)
    (call $output_set (call $input_offset) (call $input_length))
    (i32.const 0))

  ;; Into the guest's own memory and out again, eight bytes at a time, as Extism's PDKs do.
  (func (export "copy") (result i32) (local $size i64) (local $at i64) (local $to i64)
    (local.set $size (call $input_length))
    (block $read
      (loop $words
        (br_if $read (i64.gt_u (i64.add (local.get $at) (i64.const 8)) (local.get $size)))
        (i64.store (i32.wrap_i64 (local.get $at)) (call $input_load_u64 (local.get $at)))
        (local.set $at (i64.add (local.get $at) (i64.const 8)))
        (br $words)))
    (block $read-rest
      (loop $bytes
        (br_if $read-rest (i64.ge_u (local.get $at) (local.get $size)))
        (i32.store8 (i32.wrap_i64 (local.get $at)) (call $input_load_u8 (local.get $at)))
        (local.set $at (i64.add (local.get $at) (i64.const 1)))
        (br $bytes)))
    (local.set $to (call $alloc (local.get $size)))
    (local.set $at (i64.const 0))
    (block $written
      (loop $words
        (br_if $written (i64.gt_u (i64.add (local.get $at) (i64.const 8)) (local.get $size)))
        (call $store_u64 (i64.add (local.get $to) (local.get $at))
          (i64.load (i32.wrap_i64 (local.get $at))))
        (local.set $at (i64.add (local.get $at) (i64.const 8)))
        (br $words)))
    (block $written-rest
      (loop $bytes
        (br_if $written-rest (i64.ge_u (local.get $at) (local.get $size)))
        (call $store_u8 (i64.add (local.get $to) (local.get $at))
          (i32.load8_u (i32.wrap_i64 (local.get $at))))
        (local.set $at (i64.add (local.get $at) (i64.const 1)))
        (br $bytes)))
    (call $output_set (local.get $to) (local.get $size))
    (i32.const 0))

  (func (export "spin") (result i32) (local $n i32) (local $x i32)
    (local.set $n (call $argument))
    (local.set $x (i32.const 1))
    (loop $again
      (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 13))))
      (local.set $x (i32.xor (local.get $x) (i32.shr_u (local.get $x) (i32.const 17))))
      (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 5))))
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br_if $again (local.get $n)))
    (call $answer (local.get $x)))

  (func (export "times") (result i32)
    (local $n i32) (local $before i64) (local $now i64) (local $good i32)
    (local.set $n (call $argument))
    (loop $again
      (local.set $now (call $monotonic))
      (local.set $good (i32.add (local.get $good)
        (i64.ge_u (local.get $now) (local.get $before))))
      (local.set $before (local.get $now))
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br_if $again (local.get $n)))
    (call $answer (local.get $good)))

  ;; "greeting" as one number, in a block of its own each time.
  (func (export "texts") (result i32)
    (local $n i32) (local $sum i32) (local $key i64) (local $text i64)
    (local.set $n (call $argument))
    (loop $again
      (local.set $key (call $alloc (i64.const 8)))
      (call $store_u64 (local.get $key) (i64.const 0x676e697465657267))
      (local.set $text (call $config (local.get $key)))
      (local.set $sum (i32.add (local.get $sum)
        (i32.wrap_i64 (call $length (local.get $text)))))
      (call $free (local.get $text))
      (call $free (local.get $key))
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br_if $again (local.get $n)))
    (call $answer (local.get $sum)))

  ;; "value" and three spaces as one number; what comes is a block that the host has filled.
  (func (export "values") (result i32)
    (local $n i32) (local $sum i32) (local $key i64) (local $bytes i64)
    (local.set $n (call $argument))
    (loop $again
      (local.set $key (call $alloc (i64.const 8)))
      (call $store_u64 (local.get $key) (i64.const 0x20202065756c6176))
      (local.set $bytes (call $value (local.get $key)))
      (local.set $sum (i32.add (local.get $sum)
        (i32.wrap_i64 (call $length (local.get $bytes)))))
      (call $free (local.get $bytes))
      (call $free (local.get $key))
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br_if $again (local.get $n)))
    (call $answer (local.get $sum))))
