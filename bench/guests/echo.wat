;; What crosses comes back: by the canonical ABI, without a copy inside the guest (`echo-…`), or
;; through one (`copy-…`), as a real plugin would read its argument and build its answer.
(component
  (core module $m
    (memory (export "memory") 2)
    (global $top (mut i32) (i32.const 1024))

    ;; Bumps, and grows the memory to what is needed; all is let go of when the result was read.
    (func $alloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32) (local $more i32)
      (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
      (global.set $top (i32.add (local.get $at) (local.get 3)))
      (local.set $more (i32.sub
        (i32.shr_u (i32.add (global.get $top) (i32.const 0xFFFF)) (i32.const 16))
        (memory.size)))
      (if (i32.gt_s (local.get $more) (i32.const 0))
        (then (if (i32.lt_s (memory.grow (local.get $more)) (i32.const 0))
          (then (unreachable)))))
      (local.get $at))
    (func (export "done") (param i32) (global.set $top (i32.const 1024)))

    (func $pair (param i32 i32) (result i32)
      (i32.store (i32.const 16) (local.get 0))
      (i32.store (i32.const 20) (local.get 1))
      (i32.const 16))

    (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))

    (func (export "echo") (param i32 i32) (result i32) (call $pair (local.get 0) (local.get 1)))

    (func (export "copy") (param $from i32) (param $size i32) (result i32) (local $to i32)
      (local.set $to
        (call $alloc (i32.const 0) (i32.const 0) (i32.const 1) (local.get $size)))
      (memory.copy (local.get $to) (local.get $from) (local.get $size))
      (call $pair (local.get $to) (local.get $size)))

    ;; id, ratio, name, live: laid out as the canonical ABI has the record.
    (func (export "record") (param i32 f64 i32 i32 i32) (result i32)
      (i32.store (i32.const 64) (local.get 0))
      (f64.store (i32.const 72) (local.get 1))
      (i32.store (i32.const 80) (local.get 2))
      (i32.store (i32.const 84) (local.get 3))
      (i32.store8 (i32.const 88) (local.get 4))
      (i32.const 64))

    ;; xorshift, `n` rounds.
    (func (export "spin") (param $n i32) (result i32) (local $x i32)
      (local.set $x (i32.const 1))
      (loop $again
        (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 13))))
        (local.set $x (i32.xor (local.get $x) (i32.shr_u (local.get $x) (i32.const 17))))
        (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 5))))
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br_if $again (local.get $n)))
      (local.get $x)))
  (core instance $i (instantiate $m))
  (alias core export $i "memory" (core memory $memory))
  (alias core export $i "cabi_realloc" (core func $realloc))
  (alias core export $i "done" (core func $done))

  (type $sample' (record (field "id" u32) (field "ratio" f64) (field "name" string)
    (field "live" bool)))
  (export $sample "sample" (type $sample'))

  (func (export "add") (param "a" u32) (param "b" u32) (result u32)
    (canon lift (core func $i "add")))
  (func (export "spin") (param "n" u32) (result u32) (canon lift (core func $i "spin")))
  (func (export "echo-string") (param "x" string) (result string)
    (canon lift (core func $i "echo") (memory $memory) (realloc $realloc) (post-return $done)))
  (func (export "echo-bytes") (param "x" (list u8)) (result (list u8))
    (canon lift (core func $i "echo") (memory $memory) (realloc $realloc) (post-return $done)))
  (func (export "echo-u32s") (param "x" (list u32)) (result (list u32))
    (canon lift (core func $i "echo") (memory $memory) (realloc $realloc) (post-return $done)))
  (func (export "echo-f64s") (param "x" (list f64)) (result (list f64))
    (canon lift (core func $i "echo") (memory $memory) (realloc $realloc) (post-return $done)))
  (func (export "copy-string") (param "x" string) (result string)
    (canon lift (core func $i "copy") (memory $memory) (realloc $realloc) (post-return $done)))
  (func (export "echo-record") (param "x" $sample) (result $sample)
    (canon lift (core func $i "record") (memory $memory) (realloc $realloc) (post-return $done)))
  (func (export "echo-records") (param "x" (list $sample)) (result (list $sample))
    (canon lift (core func $i "echo") (memory $memory) (realloc $realloc) (post-return $done))))
