//! Logging in and asking, over every kind of channel.

use std::time::Duration;

use std::sync::atomic::{AtomicBool, Ordering};

use backstay_postgres::{Answer, Connection, CopyBothStart, Mode, PostgresError};
use backstay_testkit::pg::{Listen, PgOptions, PgServer, Stop, parse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn server_with_passwords() -> PgServer {
    let server = PgServer::start_with(PgOptions {
        listen: Listen::Loopback,
        hba: [
            "host all trusted 127.0.0.1/32 trust",
            "host all,replication scram 127.0.0.1/32 scram-sha-256",
            "host all,replication md5 127.0.0.1/32 md5",
            "host all clear 127.0.0.1/32 password",
            "local all clear password",
            "local all scram scram-sha-256",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..PgOptions::default()
    })
    .await;
    server
        .sql(
            "CREATE ROLE trusted LOGIN; CREATE ROLE scram LOGIN REPLICATION PASSWORD 's''3cret';
             CREATE ROLE clear LOGIN PASSWORD 'plain'; SET password_encryption = md5;
             CREATE ROLE md5 LOGIN REPLICATION PASSWORD 'old';",
        )
        .await;
    server
}

async fn who(conninfo: &str) -> Result<String, PostgresError> {
    let mut connection = Connection::connect(&parse(conninfo), Mode::Sql).await?;
    let sets = connection.simple_query("SELECT current_user AS who").await?;
    Ok(sets[0].value(0, "who").unwrap().to_owned())
}

#[tokio::test]
async fn trust_md5_scram_and_clear_text_log_in_where_they_may() {
    let server = server_with_passwords().await;
    let tcp = |user| server.tcp_conninfo_text(user);
    assert_eq!(who(&tcp("trusted")).await.unwrap(), "trusted");
    assert_eq!(
        who(&(tcp("scram") + r" password='s\'3cret'")).await.unwrap(),
        "scram"
    );
    assert_eq!(who(&(tcp("md5") + " password=old")).await.unwrap(), "md5");
    let socket = server.conninfo_text().replace("user=postgres", "");
    assert_eq!(
        who(&(socket.clone() + " user=scram password=s'3cret"))
            .await
            .unwrap(),
        "scram"
    );
    assert_eq!(
        who(&(socket + " user=clear password=plain")).await.unwrap(),
        "clear"
    );
    let refused = who(&(tcp("clear") + " password=plain")).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "authentication at 127.0.0.1:{}: the server asks for the password in clear over an unencrypted network connection",
            server.port()
        )
    );
    let mut walsender = Connection::connect(
        &parse(&(tcp("scram") + r" password='s\'3cret'")),
        Mode::Replication,
    )
    .await
    .unwrap();
    let identity = walsender.simple_query("IDENTIFY_SYSTEM").await.unwrap();
    assert_eq!(identity[0].value(0, "timeline"), Some("1"));
}

#[tokio::test]
async fn a_wrong_or_missing_password_says_so() {
    let server = server_with_passwords().await;
    let wrong = who(&(server.tcp_conninfo_text("scram") + " password=guess"))
        .await
        .unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "server: FATAL: password authentication failed for user \"scram\" (28P01)"
    );
    let missing = who(&server.tcp_conninfo_text("scram")).await.unwrap_err();
    assert_eq!(
        missing.to_string(),
        format!(
            "127.0.0.1:{} asks for a password for user \"scram\" and none was found",
            server.port()
        )
    );
}

#[tokio::test]
async fn the_password_file_is_read_anew_and_only_when_it_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let server = server_with_passwords().await;
    let file = server.room().path().join("pgpass");
    let chmod = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    let text = format!("{} passfile={}", server.tcp_conninfo_text("md5"), file.display());
    let conninfo = parse(&text);
    std::fs::write(
        &file,
        format!("# ours\n127.0.0.1:{}:*:md5:wrong\n", server.port()),
    )
    .unwrap();
    chmod(0o600);
    assert!(Connection::connect(&conninfo, Mode::Sql).await.is_err());
    std::fs::write(
        &file,
        format!("other:*:*:md5:no\n127.0.0.1:{}:*:md5:old\n", server.port()),
    )
    .unwrap();
    Connection::connect(&conninfo, Mode::Sql).await.unwrap();
    Connection::connect(&conninfo, Mode::Replication).await.unwrap();
    chmod(0o644);
    let error = Connection::connect(&conninfo, Mode::Sql)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("can be read by others, so it is not used; chmod 600 /"),
        "{error}"
    );
}

#[tokio::test]
async fn a_failed_command_leaves_the_connection_usable() {
    let server = PgServer::start().await;
    let mut connection = server.connect(Mode::Sql).await.unwrap();
    let error = connection
        .simple_query("SELECT 1; SELECT nothing")
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "server: ERROR: column \"nothing\" does not exist (42703)"
    );
    let sets = connection
        .simple_query("DO $$ BEGIN RAISE WARNING 'mind'; END $$; SELECT NULL AS n, 2 AS two")
        .await
        .unwrap();
    assert_eq!(
        (sets[1].value(0, "n"), sets[1].value(0, "two")),
        (None, Some("2"))
    );
    assert_eq!(connection.take_notices()[0].message, "mind");
    assert_eq!(connection.version().unwrap() / 10_000, 15);
}

#[tokio::test]
async fn hosts_are_tried_in_order_and_a_dead_one_names_itself() {
    let server = PgServer::start_with(PgOptions {
        listen: Listen::Loopback,
        ..PgOptions::default()
    })
    .await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let both = format!(
        "host=127.0.0.1,{} port={dead},{} user=postgres dbname=postgres",
        server.socket_dir().display(),
        server.port()
    );
    assert_eq!(who(&both).await.unwrap(), "postgres");
    let only = who(&format!("host=127.0.0.1 port={dead} user=x"))
        .await
        .unwrap_err();
    assert_eq!(
        only.to_string(),
        format!("cannot connect to 127.0.0.1:{dead}: Connection refused (os error 111)")
    );
}

#[tokio::test]
async fn a_silent_peer_ends_in_a_timeout() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let conninfo = parse(&format!(
        "host=127.0.0.1 port={port} user=x sslmode=disable connect_timeout=2"
    ));
    let error = Connection::connect(&conninfo, Mode::Sql).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("127.0.0.1:{port} did not answer within 2s while logging in")
    );
}

#[tokio::test]
async fn a_slow_answer_ends_in_a_timeout_and_a_dead_server_is_lost() {
    let mut server = PgServer::start().await;
    let mut connection = server.connect(Mode::Sql).await.unwrap();
    connection.set_answer_timeout(Duration::from_millis(50));
    let error = connection.simple_query("SELECT pg_sleep(30)").await.unwrap_err();
    assert!(matches!(error, PostgresError::Timeout { .. }), "{error}");
    let mut connection = server.connect(Mode::Sql).await.unwrap();
    server.stop(Stop::Kill).await;
    let error = connection.simple_query("SELECT 1").await.unwrap_err();
    assert!(
        matches!(error, PostgresError::Lost { .. } | PostgresError::Server { .. }),
        "{error}"
    );
    server.run().await;
    assert_eq!(server.value("SELECT 7").await, "7");
}

#[tokio::test]
async fn a_copy_arrives_whole_in_small_and_large_messages() {
    let server = PgServer::start().await;
    let mut connection = server.connect(Mode::Sql).await.unwrap();
    connection
        .copy_out("COPY (SELECT repeat(chr(65 + n % 26), n * 100) FROM generate_series(1, 1000) n) TO STDOUT")
        .await
        .unwrap();
    let (mut messages, mut bytes) = (0, 0);
    while let Some(data) = connection.next_copy_data().await.unwrap() {
        assert!(
            data[..data.len() - 1]
                .iter()
                .all(|byte| *byte == b'A' + ((messages + 1) % 26) as u8)
        );
        messages += 1;
        bytes += data.len();
    }
    assert_eq!((messages, bytes), (1000, 100 * 500_500 + 1000));
    connection.send("SELECT 1").await.unwrap();
    assert!(matches!(
        connection.next_message().await.unwrap(),
        Answer::Columns(_)
    ));
}

/// What connecting to a server says that answers the start-up message with these bytes.
async fn answered(bytes: &'static [u8]) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let hostile = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 512])
            .await
            .unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, bytes)
            .await
            .unwrap();
    };
    let conninfo = parse(&format!(
        "host=127.0.0.1 port={port} user=x password=y sslmode=disable"
    ));
    let (error, ()) = tokio::join!(
        async { Connection::connect(&conninfo, Mode::Sql).await.unwrap_err() },
        hostile
    );
    error.to_string().replace(&port.to_string(), "PORT")
}

#[tokio::test]
async fn a_hostile_server_gets_neither_memory_nor_a_password() {
    let cases: [(&[u8], &str); 6] = [
        (
            b"R\x3f\xff\xff\xff",
            "a frame of type 'R' has 1073741824 bytes, more than 65536",
        ),
        (b"R\x00\x00\x00\x03", "invalid message length: header length < 4"),
        (
            b"R\x00\x00\x00\x08\x00\x00\x00\x63",
            "unknown authentication tag `99`",
        ),
        (
            b"R\x00\x00\x00\x08\x00\x00\x00\x03",
            "the server asks for the password in clear over an unencrypted network connection",
        ),
        (b"R\x00\x00\x00\x08\x00\x00\x00\x07", "the server asks for GSSAPI"),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "a frame of type 'H' has 1414811696 bytes, more than 65536",
        ),
    ];
    for (bytes, expected) in cases {
        let said = answered(bytes).await;
        assert!(said.ends_with(expected), "{said}");
    }
}

/// A server says what failed first and lets go of the slot after that: whoever came back meanwhile found it in use by himself.
#[tokio::test]
async fn a_stream_that_failed_is_over_when_the_server_has_cleaned_up_after_it() {
    const LOGGED_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    const STREAMING: &[u8] = b"W\0\0\0\x07\0\0\0";
    const GONE: &[u8] = b"E\0\0\0\x20SERROR\0VERROR\0C58P01\0Mgone\0\0";
    for begun in [STREAMING, b""] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cleaned_up = AtomicBool::new(false);
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = [0; 512];
            assert!(stream.read(&mut heard).await.unwrap() > 0);
            stream.write_all(LOGGED_IN).await.unwrap();
            assert!(stream.read(&mut heard).await.unwrap() > 0);
            stream.write_all(&[begun, GONE].concat()).await.unwrap();
            // Long enough for a client that does not wait to be done before.
            tokio::time::sleep(Duration::from_millis(200)).await;
            cleaned_up.store(true, Ordering::SeqCst);
            stream.write_all(b"Z\0\0\0\x05I").await.unwrap();
        };
        let client = async {
            let conninfo = parse(&format!("host=127.0.0.1 port={port} user=x sslmode=disable"));
            let connection = Connection::connect(&conninfo, Mode::Replication).await.unwrap();
            let error = match connection.start_copy_both("START_REPLICATION 0/0").await {
                Ok(CopyBothStart::Streaming(mut stream)) => {
                    let error = stream.recv().await.unwrap_err();
                    stream.finish().await.unwrap();
                    error
                }
                answer => answer.unwrap_err(),
            };
            (error, cleaned_up.load(Ordering::SeqCst))
        };
        let ((error, is_over), ()) = tokio::join!(client, server);
        assert_eq!(error.to_string(), "server: ERROR: gone (58P01)");
        assert!(is_over, "{begun:?}");
    }
}
