;; Sixteen bytes as nineteen that are below 0x80, and back: the low seven bits of each, then the
;; sixteen high bits in three (7, 7 and 2).  A string may hold any such bytes, so a block crosses as
;; one.  `n` is the block's size, a multiple of 16.  Both give the end of what they wrote.
;; Both may be in place: decoding goes forward and reads ahead of what it writes; encoding goes
;; backward.  Decoding reads the three bytes as four: one byte past the last group is read.

(func $enc (param $src i32) (param $n i32) (param $dst i32) (result i32)
  (local $end i32) (local $at i32) (local $v v128) (local $high i32)
  (local.set $end (i32.add (local.get $dst)
    (i32.mul (i32.shr_u (local.get $n) (i32.const 4)) (i32.const 19))))
  (local.set $at (local.get $end))
  (local.set $n (i32.add (local.get $src) (local.get $n)))
  (block $done
    (loop $next
      (br_if $done (i32.le_u (local.get $n) (local.get $src)))
      (local.set $n (i32.sub (local.get $n) (i32.const 16)))
      (local.set $at (i32.sub (local.get $at) (i32.const 19)))
      (local.set $v (v128.load (local.get $n)))
      (local.set $high (i8x16.bitmask (local.get $v)))
      (v128.store (local.get $at)
        (v128.and (local.get $v) (v128.const i32x4 0x7f7f7f7f 0x7f7f7f7f 0x7f7f7f7f 0x7f7f7f7f)))
      (i32.store16 offset=16 (local.get $at)
        (i32.or (i32.and (local.get $high) (i32.const 0x7f))
                (i32.and (i32.shl (local.get $high) (i32.const 1)) (i32.const 0x7f00))))
      (i32.store8 offset=18 (local.get $at) (i32.shr_u (local.get $high) (i32.const 14)))
      (br $next)))
  (local.get $end))

(func $dec (param $src i32) (param $n i32) (param $dst i32) (result i32)
  (local $end i32) (local $high i32)
  (local.set $end (i32.add (local.get $dst) (local.get $n)))
  (block $done
    (loop $next
      (br_if $done (i32.ge_u (local.get $dst) (local.get $end)))
      (local.set $high (i32.load offset=16 (local.get $src)))
      (local.set $high
        (i32.or (i32.and (local.get $high) (i32.const 0x7f))
          (i32.or (i32.shr_u (i32.and (local.get $high) (i32.const 0x7f00)) (i32.const 1))
                  (i32.shr_u (i32.and (local.get $high) (i32.const 0x30000)) (i32.const 2)))))
      ;; Each lane looks at its own bit: a byte of the sixteen bits in all lanes, one bit kept in
      ;; each, and where that is set, 0x80.
      (v128.store (local.get $dst)
        (v128.or (v128.load (local.get $src))
          (v128.and (v128.const i32x4 0x80808080 0x80808080 0x80808080 0x80808080)
            (i8x16.ne (v128.const i32x4 0 0 0 0)
              (v128.and (v128.const i8x16 1 2 4 8 16 32 64 128 1 2 4 8 16 32 64 128)
                (i8x16.shuffle 0 0 0 0 0 0 0 0 1 1 1 1 1 1 1 1
                  (i32x4.splat (local.get $high)) (i32x4.splat (local.get $high))))))))
      (local.set $src (i32.add (local.get $src) (i32.const 19)))
      (local.set $dst (i32.add (local.get $dst) (i32.const 16)))
      (br $next)))
  (local.get $dst))
