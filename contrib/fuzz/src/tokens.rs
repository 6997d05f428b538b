//! The tokens file, and the text of a token.

use bitcoin::hashes::{Hash, sha256};
use satwatch::auth::{Scope, Token, TokenHash, TokenId, TokenText, TokensFile};

use super::Secrets;

/// The first byte says what the others are: a file as it is, what stands behind its head, or tokens
/// of a file and a change of its text.
pub fn tokens(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else {
        return;
    };
    let secrets = Secrets::of(data);
    match which % 4 {
        0 => text(&secrets.put(rest)),
        1 => file(&secrets, &secrets.put(rest)),
        2 => {
            let body = secrets.put(rest);
            let check = sha256::Hash::hash(&body).to_string();
            let head = "# Written by satwatch token; do not edit.\ncheck = \"";
            file(
                &secrets,
                &[head.as_bytes(), check.as_bytes(), b"\"\n", &body].concat(),
            );
        }
        _ => changed(&secrets, rest),
    }
}

/// A token is shown as it was read.
fn text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(token) = TokenText::parse(&text) {
        assert_eq!(token.reveal(), text);
    }
}

/// A file says the same when it is written again, or what is wrong with it.
fn file(secrets: &Secrets, bytes: &[u8]) {
    match TokensFile::parse(&String::from_utf8_lossy(bytes)) {
        Ok(file) => assert_eq!(TokensFile::parse(&file.to_text()), Ok(file)),
        Err(why) => secrets.check(&why),
    }
}

/// A file in which anything was changed is none at all.
fn changed(secrets: &Secrets, data: &[u8]) {
    let Some(([how, place @ .., byte], tokens)) = data.split_first_chunk::<4>() else {
        return;
    };
    let tokens = tokens.chunks(12).map(token);
    let mut file = TokensFile {
        serial: u64::from(*how),
        origin: (how & 2 == 0).then_some(TokenId([*byte; 8])),
        on: how & 1 == 0,
        tokens: Vec::new(),
    };
    for token in tokens {
        if file.tokens.iter().all(|other| other.id != token.id) {
            file.tokens.push(token);
        }
    }
    let good = file.to_text();
    assert_eq!(TokensFile::parse(&good), Ok(file));
    let mut bytes = good.clone().into_bytes();
    let place = usize::from(u16::from_le_bytes(*place)) % bytes.len();
    match how % 4 {
        0 => bytes[place] = *byte,
        1 => bytes[place] ^= 1 << (byte % 8),
        2 => bytes.insert(place, *byte),
        _ => bytes.truncate(place),
    }
    if let Ok(bad) = String::from_utf8(bytes)
        && bad != good
    {
        let read = TokensFile::parse(&bad);
        secrets.check(&read.expect_err("what is not as it was written"));
    }
}

fn token(bytes: &[u8]) -> Token {
    let byte = |place: usize| bytes.get(place).copied().unwrap_or_default();
    let hex = |times| format!("{:02x}", byte(1)).repeat(times);
    Token {
        id: TokenId::parse(&hex(8)).expect("8 bytes"),
        name: "Az09._-".repeat(usize::from(byte(2) % 9) + 1),
        scope: Scope::ALL[usize::from(byte(0)) % Scope::ALL.len()],
        hash: TokenHash::parse(&hex(32)).expect("32 bytes"),
        created: u64::from(byte(3)) << (byte(4) % 54),
        expires: (byte(5) > 99).then(|| u64::from(byte(6)) << (byte(7) % 54)),
    }
}
