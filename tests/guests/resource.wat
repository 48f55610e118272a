;; Exports a resource whose destructor traps when its number is odd.
(component
  (core module $dtor
    (func (export "drop") (param i32)
      (if (i32.and (local.get 0) (i32.const 1)) (then unreachable))))
  (core instance $dtor (instantiate $dtor))
  (type $thing' (resource (rep i32) (dtor (core func $dtor "drop"))))
  (core func $new (canon resource.new $thing'))
  (core module $m
    (import "host" "new" (func $new (param i32) (result i32)))
    (func (export "make") (param i32) (result i32) (call $new (local.get 0)))
    (func (export "number") (param i32) (result i32) (local.get 0)))
  (core instance $i (instantiate $m (with "host" (instance (export "new" (func $new))))))
  (func $make (param "n" u32) (result (own $thing')) (canon lift (core func $i "make")))
  (func $number (param "self" (borrow $thing')) (result u32) (canon lift (core func $i "number")))
  (component $api
    (import "thing" (type $thing (sub resource)))
    (import "make" (func $make (param "n" u32) (result (own $thing))))
    (import "number" (func $number (param "self" (borrow $thing)) (result u32)))
    (export $t "thing" (type $thing))
    (export "make" (func $make) (func (param "n" u32) (result (own $t))))
    (export "number" (func $number) (func (param "self" (borrow $t)) (result u32))))
  (instance $api (instantiate $api
    (with "thing" (type $thing')) (with "make" (func $make)) (with "number" (func $number))))
  (export "test:thing/api" (instance $api)))
