;; Calls the host `n` times within one call: for a number without arguments, for a text, for bytes.
(component
  (import "capwasm:clock/clock@0.1.0" (instance $clock
    (export "monotonic" (func (result u64)))))
  (import "capwasm:config/config@0.1.0" (instance $config
    (export "get" (func (param "key" string) (result (option string))))))
  (import "capwasm:kv/store@0.1.0" (instance $kv
    (type $error' (enum "denied" "invalid" "quota" "too-large" "closed" "unavailable"))
    (export "error" (type $error (eq $error')))
    (export "get" (func (param "key" string)
      (result (result (option (list u8)) (error $error)))))
    (export "set" (func (param "key" string) (param "value" (list u8)) (param "ttl-ms" (option u64))
      (result (result (error $error)))))))
  (alias export $clock "monotonic" (func $monotonic))
  (alias export $kv "get" (func $value))
  (alias export $kv "set" (func $keep))
  (alias export $config "get" (func $get))

  (core module $libc
    (memory (export "memory") 8)
    (global $top (export "top") (mut i32) (i32.const 1024))
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
      (global.set $top (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (alias core export $libc "cabi_realloc" (core func $realloc))
  (core func $monotonic' (canon lower (func $monotonic)))
  (core func $get' (canon lower (func $get) (memory $memory) (realloc $realloc)))
  (core func $value' (canon lower (func $value) (memory $memory) (realloc $realloc)))
  (core func $keep' (canon lower (func $keep) (memory $memory) (realloc $realloc)))

  (core module $m
    (import "libc" "memory" (memory 8))
    (import "libc" "top" (global $top (mut i32)))
    (import "host" "monotonic" (func $monotonic (result i64)))
    (import "host" "get" (func $get (param i32 i32 i32)))
    (import "host" "value" (func $value (param i32 i32 i32)))
    (import "host" "keep" (func $keep (param i32 i32 i32 i32 i32 i64 i32)))
    (data (i32.const 16) "greeting")
    (data (i32.const 24) "value")

    (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))

    ;; How many of the answers were no earlier than the one before: `n`, if the host was asked.
    (func (export "times") (param $n i32) (result i32)
      (local $before i64) (local $now i64) (local $good i32)
      (loop $again
        (local.set $now (call $monotonic))
        (local.set $good (i32.add (local.get $good)
          (i64.ge_u (local.get $now) (local.get $before))))
        (local.set $before (local.get $now))
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br_if $again (local.get $n)))
      (local.get $good))

    ;; The lengths of all the answers together.
    (func (export "texts") (param $n i32) (result i32) (local $sum i32)
      (loop $again
        (global.set $top (i32.const 1024))
        (call $get (i32.const 16) (i32.const 8) (i32.const 64))
        (if (i32.load8_u (i32.const 64))
          (then (local.set $sum (i32.add (local.get $sum) (i32.load (i32.const 72))))))
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br_if $again (local.get $n)))
      (local.get $sum))

    ;; `size` bytes of the memory, whatever they are, become the value that `values` asks for.
    (func (export "keep") (param $size i32) (result i32)
      (call $keep (i32.const 24) (i32.const 5) (i32.const 0) (local.get $size)
        (i32.const 0) (i64.const 0) (i32.const 64))
      (i32.eqz (i32.load8_u (i32.const 64))))

    ;; The lengths of all the values together.
    (func (export "values") (param $n i32) (result i32) (local $sum i32)
      (loop $again
        (global.set $top (i32.const 1024))
        (call $value (i32.const 24) (i32.const 5) (i32.const 64))
        (if (i32.and (i32.eqz (i32.load8_u (i32.const 64))) (i32.load8_u (i32.const 68)))
          (then (local.set $sum (i32.add (local.get $sum) (i32.load (i32.const 76))))))
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br_if $again (local.get $n)))
      (local.get $sum)))
  (core instance $i (instantiate $m
    (with "libc" (instance $libc))
    (with "host" (instance
      (export "monotonic" (func $monotonic'))
      (export "get" (func $get'))
      (export "value" (func $value'))
      (export "keep" (func $keep'))))))

  (func (export "add") (param "a" u32) (param "b" u32) (result u32)
    (canon lift (core func $i "add")))
  (func (export "times") (param "n" u32) (result u32) (canon lift (core func $i "times")))
  (func (export "texts") (param "n" u32) (result u32) (canon lift (core func $i "texts")))
  (func (export "keep") (param "size" u32) (result bool) (canon lift (core func $i "keep")))
  (func (export "values") (param "n" u32) (result u32) (canon lift (core func $i "values"))))
