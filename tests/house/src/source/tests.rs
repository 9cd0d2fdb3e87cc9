//! Tests of the reader of Rust sources.

use super::*;

fn one(path: &str, text: &str) -> SourceFile {
    sources(&[TextFile::planted(path, text)]).remove(0)
}

#[test]
fn comments_and_literals_are_blanked_and_lines_stay() {
    let cases = [
        ("a // fn b\nc", "a        \nc"),
        ("a /* x /* y */ z */ b", "a                   b"),
        (r#"a "x\"y" b"#, "a        b"),
        ("a r#\"x\"y\"# b", "a          b"),
        (r"a '\'' b '{' c", "a      b     c"),
        ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
        ("a 'ä' b", "a      b"),
        ("let r = r#type;", "let r = r#type;"),
        ("a \"x\ny\" b", "a   \n   b"),
        ("for_br\"x\"", "for_br   "),
    ];
    for (text, masked) in cases {
        assert_eq!(mask::mask(text), masked, "of {text}");
    }
}

#[test]
fn a_literal_cut_off_by_the_end_of_the_file_is_blanked_to_the_end() {
    for text in ["\"abc", "/* abc", "r#\"abc", "'\\", "\"abc\\"] {
        assert_eq!(mask::mask(text).trim(), "", "of {text}");
    }
}

#[test]
fn test_items_do_not_count_as_product() {
    let text = "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
    let file = one("crates/x/src/lib.rs", text);
    let names: Vec<String> = functions(&file.product).into_iter().map(|f| f.name).collect();
    assert_eq!(names, ["a", "c"]);
    assert_eq!(file.product_lines, 2);
}

#[test]
fn a_module_declared_for_tests_is_a_test_file() {
    let files = [
        TextFile::planted("crates/x/src/wide.rs", "#[cfg(test)]\nmod checks;\nmod parts;\n"),
        TextFile::planted("crates/x/src/wide/checks.rs", "fn a() {}"),
        TextFile::planted("crates/x/src/wide/checks/deep.rs", "fn a() {}"),
        TextFile::planted("crates/x/src/wide/parts.rs", "fn a() {}"),
    ];
    let roles: Vec<Role> = sources(&files).iter().map(|file| file.role).collect();
    assert_eq!(roles, [Role::Product, Role::Test, Role::Test, Role::Product]);
}

#[test]
fn the_folder_tells_tests_and_test_support_from_the_product() {
    assert_eq!(one("crates/x/tests/it/main.rs", "").role, Role::Test);
    assert_eq!(one("crates/x/src/y/tests.rs", "").role, Role::Test);
    assert_eq!(one("crates/testkit/src/lib.rs", "").role, Role::Support);
    assert_eq!(one("crates/x/src/latests.rs", "").role, Role::Product);
}

#[test]
fn functions_are_measured_to_their_closing_brace() {
    let code = "trait T { fn none(&self) -> [u8; 4]; }\nfn two(f: fn(u8) -> u8) -> [u8; 4]\n{ if x { y } }\n";
    assert_eq!(
        functions(code),
        [Function {
            name: "two".to_owned(),
            line: 2,
            lines: 2
        }]
    );
}

#[test]
fn words_are_whole_words() {
    assert_eq!(
        words("eprintln!() println!()", "println!").collect::<Vec<_>>(),
        [12]
    );
    assert_eq!(words("unsafe_code unsafe {", "unsafe").collect::<Vec<_>>(), [12]);
}
