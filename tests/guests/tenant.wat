;; Leaves traces wherever an instance can, and counts what it finds: memory, table, global.
;; IMAGE is replaced by data segments, or by nothing: with and without an initial image.
(component
  (core module $m
    (memory 20)
    (table $t 2000 funcref)
    (global $g (mut i32) (i32.const 0))
    (elem declare func $f)
    (func $f)
    ;; IMAGE
    (func (export "mark") (param $from i32) (param $to i32)
      (global.set $g (i32.const 7))
      (memory.fill (local.get $from) (i32.const 0xAB) (i32.sub (local.get $to) (local.get $from)))
      (table.fill $t (i32.const 0) (ref.func $f) (table.size $t)))
    (func (export "traces") (param $from i32) (param $to i32) (result i32)
      (local $found i32) (local $i i32)
      (loop $again
        (local.set $found (i32.add (local.get $found)
          (i32.ne (i32.load8_u (local.get $from)) (i32.const 0))))
        (local.set $from (i32.add (local.get $from) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $from) (local.get $to))))
      (loop $again
        (local.set $found (i32.add (local.get $found)
          (i32.eqz (ref.is_null (table.get $t (local.get $i))))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $i) (table.size $t))))
      (i32.add (local.get $found) (global.get $g)))
    (func (export "grow") (param i32) (result i32)
      (drop (table.grow $t (ref.null func) (local.get 0)))
      (memory.grow (local.get 0)))
    (func (export "spin") (loop $l (br $l)))
    (func (export "trap") unreachable))
  (core instance $i (instantiate $m))
  (func (export "mark") (param "from" u32) (param "to" u32) (canon lift (core func $i "mark")))
  (func (export "traces") (param "from" u32) (param "to" u32) (result u32)
    (canon lift (core func $i "traces")))
  (func (export "grow") (param "by" u32) (result s32) (canon lift (core func $i "grow")))
  (func (export "spin") (canon lift (core func $i "spin")))
  (func (export "trap") (canon lift (core func $i "trap"))))
